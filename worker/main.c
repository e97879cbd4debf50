/* ropewalk-worker: one rank of a group.  Boot, step loop, exit code. */
#include "base/clock.h"
#include "base/log.h"
#include "kernels/cpu/cpu_library.h"
#include "proto/rpc.h"
#include "worker/boot/boot_mpi.h"
#include "worker/boot/watchman.h"
#include "worker/rank.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define EXIT_USAGE       2
#define FAREWELL_SECONDS 3
#define SPEAK_MS         100 /* ranks notice a lost one within some ms of each other */

static volatile sig_atomic_t stop_wanted;

static void on_stop_signal(int signal_number)
{
    (void)signal_number;
    stop_wanted = 1;
}

static void watch_signals(void)
{
    struct sigaction action = {.sa_handler = on_stop_signal};
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN; /* a lost peer is a return value */
    (void)sigaction(SIGPIPE, &action, NULL);
}

static void give_up(int signal_number)
{
    (void)signal_number;
    _exit(EXIT_FAILURE);
}

/* The job cannot go on.  Neither MPI nor a stuck stream may hold us: mpirun ends the other ranks, but not before those that
 * notice the same fault a little later have said what they know.  What the GPU still runs is told to stop, which may hang
 * too, and so may a log that nobody reads, so only for so long. */
static _Noreturn void leave(rank *r, base_status st)
{
    static atomic_flag leaving = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&leaving)) {
        (void)pause(); /* another thread does it */
    }
    const struct itimerval limit = {.it_value = {.tv_usec = ENGINE_ABORT_MS * 1000L}};
    const struct sigaction action = {.sa_handler = give_up};
    (void)sigaction(SIGALRM, &action, NULL);
    (void)setitimer(ITIMER_REAL, &limit, NULL);
    BASE_ERROR("leaving: %s (%s)%s%s", base_status_text(st), base_last_error(),
               r->m.seat.who[0] == '\0' ? "" : ", ", r->m.seat.who);
    if (r->m.tensors != NULL) {
        base_sleep_us(SPEAK_MS * 1000L);
        comm_abort(r->m.tensors);
    }
    _exit(EXIT_FAILURE);
}

/* ---- what the watchman asks ---- */

static int64_t rank_due_us(void *ctx)
{
    return engine_due_us(((rank *)ctx)->engine);
}

static base_status rank_look(void *ctx)
{
    return comm_look(((rank *)ctx)->m.tensors);
}

static void rank_leave(void *ctx)
{
    leave(ctx, ((const rank *)ctx)->m.world.n_ranks > 1 ? BASE_PEER_LOST : BASE_DEVICE_LOST);
}

/* A GPU's ops have no deadline of their own, with peers or without. */
static base_status run_steps(rank *r, const engine_io *io)
{
    base_status st = BASE_OK;
    watchman *w = NULL;
    const watchman_post post = {rank_due_us, rank_look, rank_leave, r};

    if (r->m.seat.device == KERN_DEVICE_CUDA) {
        BASE_TRY(st, out, watchman_start(&post, &base_heap, &w));
    }
    BASE_TRY(st, out, engine_run(r->engine, io, &stop_wanted));
    watchman_stop(w); /* from now on a peer may hang up; after a fault it looks on until _exit */
out:
    return st;
}

/* gRPC starts here, on rank 0 only: after MPI, and nothing forks later. */
static base_status run_rank_0(rank *r, const char *coordinator)
{
    base_status st = BASE_OK;
    attach *a = NULL;

    rpc_init();
    BASE_TRY(st, out, rank_attach(r, coordinator, &a));
    const engine_io io = attach_io(a);
    st = run_steps(r, &io);

out:
    if (base_status_scope(st) != BASE_SCOPE_WORLD) {
        attach_destroy(a);
        rpc_shutdown();
    }
    return st;
}

int main(int argc, char **argv)
{
    worker_options options;
    base_options line;
    boot_world world;
    rank r = {.engine = NULL};
    const boot_launch launch = {.slurm_ntasks = getenv("SLURM_NTASKS"),
                                .ompi_world_size = getenv("OMPI_COMM_WORLD_SIZE"),
                                .pmix_rank = getenv("PMIX_RANK")};
    char who[48] = "worker";

    cpu_library_start_again(getenv("OPENBLAS_CORETYPE"), argv);
    base_log_init(who, BASE_LOG_INFO);
    base_status st =
        worker_options_parse(argc, (const char *const *)argv, &base_heap, &line, &options);
    if (st != BASE_OK) {
        (void)fprintf(stderr, "ropewalk-worker: %s (see --help)\n", base_last_error());
        base_options_reset(&line);
        return EXIT_USAGE;
    }
    if (line.help) {
        worker_options_help(&options, stdout);
        base_options_reset(&line);
        return EXIT_SUCCESS;
    }
    st = boot_mpi_start(&launch, &world);
    if (st != BASE_OK) {
        BASE_ERROR("%s", base_last_error());
        base_options_reset(&line);
        return EXIT_FAILURE;
    }
    (void)snprintf(who, sizeof who, "worker rank %d", world.rank);
    base_log_init(who, options.log_level);
    watch_signals();
    BASE_INFO("OpenBLAS runs its %s code", cpu_library_core());

    st = rank_make(&r, &world, &options);
    if (st == BASE_OK) {
        st = world.rank == 0 ? run_rank_0(&r, options.coordinator) : run_steps(&r, NULL);
    }
    if (st != BASE_OK) {
        leave(&r, st);
    }
    BASE_INFO("leaving: %s", stop_wanted ? "told to stop" : "drained");
    (void)alarm(FAREWELL_SECONDS); /* MPI_Finalize waits for all: one may be gone by now */
    rank_end(&r);
    base_options_reset(&line);
    boot_mpi_end();
    return EXIT_SUCCESS;
}
