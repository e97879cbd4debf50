/* launch/commands.h - the verbs of `ropewalk`.
 *
 * Each takes its own argv (argv[0] is the verb), parses its options, prints errors to stderr, and returns the
 * exit status: 0 done, 1 failed, 2 the command line is wrong, 130 interrupted. */
#ifndef LAUNCH_COMMANDS_H
#define LAUNCH_COMMANDS_H

int command_serve(int argc, const char **argv);
int command_generate(int argc, const char **argv);
int command_tokenize(int argc, const char **argv);
int command_inspect(int argc, const char **argv);
int command_eval(int argc, const char **argv);
int command_doctor(int argc, const char **argv);
int command_bench(int argc, const char **argv);
int command_calibrate(int argc, const char **argv);

#endif /* LAUNCH_COMMANDS_H */
