#include "launch/bench.h"

#include "base/clock.h"
#include "launch/local_group.h"
#include "launch/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define POLL_US 20000

/* Waits for mpirun, which ends when its ranks have. */
static base_status run_ranks(const bench_options *o, char *file)
{
    base_status st = BASE_OK;
    char program[PROCESS_MAX_PATH];
    char ranks[16];
    char seconds[32];
    pid_t pid = 0;
    int exit_status = 0;
    static char mpirun[] = "mpirun", over[] = "--oversubscribe", bind[] = "--bind-to",
                none[] = "none", n[] = "-n", out[] = "--out", device[] = "--device",
                time[] = "--seconds", cpu[] = "cpu", cuda[] = "cuda";
    char *const argv[] = {mpirun,
                          over,
                          bind,
                          none,
                          n,
                          ranks,
                          program,
                          out,
                          file,
                          device,
                          o->device == KERN_DEVICE_CUDA ? cuda : cpu,
                          time,
                          seconds,
                          NULL};

    BASE_TRY(st, done, process_sibling("ropewalk-bench-merge", program));
    (void)snprintf(ranks, sizeof ranks, "%d", o->n_ranks);
    (void)snprintf(seconds, sizeof seconds, "%g", o->seconds);
    local_group_set_environment();
    BASE_TRY(st, done, process_start(argv, NULL, &pid));
    while (process_alive(pid, &exit_status)) {
        base_sleep_us(POLL_US);
    }
    if (exit_status != 0) {
        st = BASE_FAIL(BASE_UNAVAILABLE, "the ranks ended with status %d", exit_status);
    }
done:
    return st;
}

base_status bench_merge(const bench_options *o, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    char file[] = "/tmp/ropewalk-merge-XXXXXX";
    json_error_t error;
    const int fd = mkstemp(file);

    (void)mem;
    if (fd < 0) {
        return BASE_FAIL(BASE_IO, "cannot make a file like %s", file);
    }
    (void)close(fd);
    BASE_TRY(st, done, run_ranks(o, file));
    *json_out = json_load_file(file, 0, &error);
    if (*json_out == NULL) {
        st = BASE_FAIL(BASE_IO, "what the ranks wrote: %s", error.text);
    }
done:
    (void)unlink(file);
    return st;
}
