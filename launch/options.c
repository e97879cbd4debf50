#include "launch/options.h"

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
