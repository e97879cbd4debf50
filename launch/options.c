#include "launch/options.h"

#include <stdlib.h>

bool options_open(const base_command *command, int argc, const char **argv, void *into,
                  base_options *line_out, int *exit_status_out)
{
    const base_status st = base_options_read(command, argc, argv, &base_heap, into, line_out);
    if (st != BASE_OK) {
        *exit_status_out = options_report(command, st);
    } else if (line_out->help) {
        base_options_help(command, into, stdout);
        *exit_status_out = 0;
    }
    return st == BASE_OK && !line_out->help;
}

int options_report(const base_command *command, base_status st)
{
    (void)fprintf(stderr, "%s: %s\n", command->program, base_last_error());
    return st == BASE_BAD_INPUT ? EXIT_USAGE : EXIT_FAILED;
}

/* "8K": 8192; -1 where it is no length.  *end_out: behind it. */
static int64_t length_at(const char *text, const char **end_out)
{
    char *end = NULL;
    *end_out = text;
    if (*text < '0' || *text > '9') {
        return -1;
    }
    const long long value = strtoll(text, &end, 10);
    const int shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' || *end == 'm' ? 20 : 0;
    *end_out = end + (shift > 0);
    return value > INT64_MAX >> 20 ? -1 : (int64_t)value << shift;
}

base_status options_lengths(const char *name, const char *list, int64_t low, int64_t high,
                            int64_t *lengths_out, int32_t max_n, int32_t *n_out)
{
    const char *at = list;
    for (*n_out = 0; *n_out < max_n; at++) {
        const int64_t value = length_at(at, &at);
        if (value < low || value > high || (*at != ',' && *at != '\0')) {
            break;
        }
        lengths_out[(*n_out)++] = value;
        if (*at == '\0') {
            return BASE_OK;
        }
    }
    return BASE_FAIL(BASE_BAD_INPUT,
                     "%s '%.60s': up to %d lengths of %lld to %lld tokens, as in 4096,8K,1M", name,
                     list, max_n, (long long)low, (long long)high);
}
