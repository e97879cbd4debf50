/* launch/options.h - command lines, over popt. */
#ifndef LAUNCH_OPTIONS_H
#define LAUNCH_OPTIONS_H

#include "base/status.h"

#include <popt.h>

#define EXIT_FAILED      1
#define EXIT_USAGE       2
#define EXIT_INTERRUPTED 130

/* Fills the variables that table points to and returns what is left over in *context_out (poptGetArg),
 * which the caller ends with options_end once the strings are no longer used.
 * Errors: BAD_INPUT naming the option and what is wrong with it. */
BASE_MUST_CHECK base_status options_parse(int argc, const char **argv,
                                          const struct poptOption *table, const char *usage,
                                          poptContext *context_out);

/* Frees the context and every string that the table's variables hold. */
void options_end(poptContext context, const struct poptOption *table);

/* Prints the latest error as "ropewalk VERB: ..." and returns EXIT_USAGE for BAD_INPUT, else EXIT_FAILED. */
int options_report(const char *verb, base_status st);

#endif /* LAUNCH_OPTIONS_H */
