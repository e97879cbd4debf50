#include "worker/bench/program.h"

#include "base/log.h"

#include <stdlib.h>

#define EXIT_USAGE 2

static base_status write_json(const json_t *root, const char *file)
{
    if (root == NULL || json_dump_file(root, file, JSON_REAL_PRECISION(9)) != 0) {
        return BASE_FAIL(BASE_IO, "%s cannot be written", file);
    }
    return BASE_OK;
}

int bench_program_run(const bench_program *program, int argc, char **argv, void *settings,
                      const char *const *file)
{
    base_options line;
    boot_world world;
    json_t *root = NULL;
    const boot_launch launch = {.slurm_ntasks = NULL};

    base_log_init(program->name, BASE_LOG_INFO);
    base_status st = base_options_read(program->command, argc, (const char *const *)argv,
                                       &base_heap, settings, &line);
    if (st != BASE_OK || line.help) {
        if (st != BASE_OK) {
            BASE_ERROR("%s", base_last_error());
        } else {
            base_options_help(program->command, settings, stdout);
        }
        base_options_reset(&line);
        return st != BASE_OK ? EXIT_USAGE : EXIT_SUCCESS;
    }
    st = boot_mpi_start(&launch, &world);
    if (st == BASE_OK) {
        st = program->run(settings, &world, &root);
    }
    if (st == BASE_OK && world.rank == 0) {
        st = write_json(root, *file);
    }
    if (st != BASE_OK) {
        BASE_ERROR("%s", base_last_error());
        _Exit(EXIT_FAILURE);
    }
    json_decref(root);
    base_options_reset(&line);
    boot_mpi_end();
    return EXIT_SUCCESS;
}
