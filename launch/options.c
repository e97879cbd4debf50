#include "launch/options.h"

#include <stdio.h>

base_status options_parse(int argc, const char **argv, const struct poptOption *table,
                          const char *usage, poptContext *context_out)
{
    poptContext context = poptGetContext("ropewalk", argc, argv, table, 0);
    if (context == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "options");
    }
    poptSetOtherOptionHelp(context, usage);
    const int rc = poptGetNextOpt(context);
    if (rc < -1) {
        const base_status st =
            BASE_FAIL(BASE_BAD_INPUT, "%s: %s", poptBadOption(context, POPT_BADOPTION_NOALIAS),
                      poptStrerror(rc));
        (void)poptFreeContext(context);
        return st;
    }
    *context_out = context;
    return BASE_OK;
}

int options_report(const char *verb, base_status st)
{
    (void)fprintf(stderr, "ropewalk %s: %s\n", verb, base_last_error());
    return st == BASE_BAD_INPUT ? EXIT_USAGE : EXIT_FAILED;
}
