#include "launch/options.h"

#include "base/alloc.h"

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
        options_end(context, table);
        return st;
    }
    *context_out = context;
    return BASE_OK;
}

/* popt hands out strings by malloc; base_heap gives such memory back. */
static void put(char **text)
{
    base_heap.put(base_heap.ctx, *text);
    *text = NULL;
}

void options_end(poptContext context, const struct poptOption *table)
{
    for (; table->longName != NULL || table->arg != NULL; table++) {
        if ((table->argInfo & POPT_ARG_MASK) == POPT_ARG_STRING) {
            put(table->arg);
        } else if ((table->argInfo & POPT_ARG_MASK) == POPT_ARG_ARGV) {
            char ***list = table->arg;
            for (char **text = *list; text != NULL && *text != NULL; text++) {
                put(text);
            }
            put((char **)list);
        }
    }
    (void)poptFreeContext(context);
}

int options_report(const char *verb, base_status st)
{
    (void)fprintf(stderr, "ropewalk %s: %s\n", verb, base_last_error());
    return st == BASE_BAD_INPUT ? EXIT_USAGE : EXIT_FAILED;
}
