/* launch/options.h - how the verbs of `ropewalk` begin and end. */
#ifndef LAUNCH_OPTIONS_H
#define LAUNCH_OPTIONS_H

#include "base/options.h"

#define EXIT_FAILED      1
#define EXIT_USAGE       2
#define EXIT_INTERRUPTED 130

/* Fills *into from the verb's command line.  False: the verb returns *exit_status_out; --help has been printed, or
 * what is wrong.  Ended with base_options_reset either way. */
bool options_open(const base_command *command, int argc, const char **argv, void *into,
                  base_options *line_out, int *exit_status_out);

/* Prints the latest error as "ropewalk VERB: ..." and returns EXIT_USAGE for BAD_INPUT, else EXIT_FAILED. */
int options_report(const base_command *command, base_status st);

/* Lengths in tokens, "4096,8K,1M": at most max_n of low..high.  Errors: BAD_INPUT naming option, list and limits. */
BASE_MUST_CHECK base_status options_lengths(const char *name, const char *list, int64_t low,
                                            int64_t high, int64_t *lengths_out, int32_t max_n,
                                            int32_t *n_out);

#endif /* LAUNCH_OPTIONS_H */
