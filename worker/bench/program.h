/* worker/bench/program.h - a program that is one rank of a benchmark, started by mpirun: command line, MPI, and the JSON
 * that rank 0 writes. */
#ifndef WORKER_BENCH_PROGRAM_H
#define WORKER_BENCH_PROGRAM_H

#include "base/options.h"
#include "worker/boot/boot_mpi.h"

#include <jansson.h>

/* What transport.h asks for. */
#define BENCH_MAX_WORDS 256
#define BENCH_LIMIT_MS  20000 /* ranks may share a GPU, and then take turns */

typedef struct bench_program {
    const base_command *command;
    const char *name; /* in the log: "bench merge" */
    /* Collective.  settings: as the command line left it.  *json_out on rank 0; others may leave it NULL.  What it has
     * opened it has closed again where it returns OK. */
    base_status (*run)(void *settings, const boot_world *world, json_t **json_out);
} bench_program;

/* What main returns.  settings holds the defaults; *file is its field that --out fills.  A rank that fails ends the
 * process at once, and mpirun the others. */
int bench_program_run(const bench_program *program, int argc, char **argv, void *settings,
                      const char *const *file);

#endif /* WORKER_BENCH_PROGRAM_H */
