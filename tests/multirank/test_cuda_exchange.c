/* The one-shot exchange between processes, which share a GPU where there are fewer: tests/support/exchange_case.h.
 *   test_cuda_exchange exact    every word of every call, graph replays with pauses included
 *   test_cuda_exchange silent   the last rank calls nothing: the others name it in time
 * Skips, on every rank, where there is no GPU. */
#include "kernels/cuda/exchange_peers.h"

#include "base/clock.h"
#include "tests/support/exchange_case.h"

#include <mpi.h>
#include <unistd.h>

#define MAX_TOKENS 50
#define SILENT_MS  500
#define LATE_MS    2500 /* kernels of ranks that share a GPU take turns */

static comm *the_comm;

static cuda_exchange *open_rank(rank *k, exchange_case *x, const plan *p, int64_t limit_ms)
{
    cuda_exchange *e = NULL;
    case_open(x, p);
    rank_open(k, x, comm_rank(the_comm));
    const cuda_exchange_options options = {.stream = k->stream,
                                           .host = the_comm,
                                           .shape = {.head_dim = p->head_dim,
                                                     .max_rows = MAX_ROWS,
                                                     .max_words = MAX_WORDS,
                                                     .max_sum = SET_STRIDE,
                                                     .max_gather = MAX_GATHER},
                                           .limit_ms = limit_ms};
    CHECK_STATUS(cuda_exchange_open(&options, &base_heap, &e), BASE_OK);
    k->port = *cuda_exchange_port_of(e);
    record(k);
    return e;
}

static void every_word_is_what_ops_make_of_all_ranks(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 2; i++) {
        const plan p =
            plan_of(comm_size(the_comm), i == 0 ? 128 : 64, i == 0 ? 12 : 24, i == 0, MAX_TOKENS);
        exchange_case x;
        rank k;
        cuda_exchange *e = open_rank(&k, &x, &p, 20000);
        for (int32_t n = 0; n < p.n_replays; n++) {
            spoil(&k);
            base_sleep_us(
                (int64_t)(base_random_u64(PARITY_SEED, 1000 + (uint64_t)k.index, (uint64_t)n) %
                          5000));
            OK(cudaGraphLaunch(k.graph, k.stream));
            OK(cudaStreamSynchronize(k.stream));
            CHECK_STATUS(cuda_exchange_check(e), BASE_OK);
            check_rank(&k);
        }
        cuda_exchange_close(e);
        rank_close(&k);
        case_close(&x);
    }
}

static void what_no_rank_can_do_is_refused_on_all(void **state)
{
    (void)state;
    cuda_exchange *e = NULL;
    const cuda_exchange_options options = {
        .host = the_comm,
        .shape = {.head_dim = comm_rank(the_comm) == comm_size(the_comm) - 1 ? 96 : 64,
                  .max_rows = 1,
                  .max_words = 1},
        .limit_ms = 1};
    CHECK_STATUS(cuda_exchange_open(&options, &base_heap, &e), BASE_UNAVAILABLE);
    CHECK_ERROR_NAMES("head dim 96");
}

static void windows_of_another_shape_are_refused_on_all(void **state)
{
    (void)state;
    cuda_exchange *e = NULL;
    const cuda_exchange_options options = {.host = the_comm,
                                           .shape = {.head_dim = 64,
                                                     .max_rows = 1,
                                                     .max_words = 1,
                                                     .max_sum = comm_rank(the_comm) == 0},
                                           .limit_ms = 1};
    CHECK_STATUS(cuda_exchange_open(&options, &base_heap, &e), BASE_UNAVAILABLE);
    CHECK_ERROR_NAMES("another shape");
}

static void a_silent_rank_is_named_in_time(void **state)
{
    (void)state;
    const int32_t last = comm_size(the_comm) - 1;
    const plan p = plan_of(comm_size(the_comm), 128, 12, false, MAX_TOKENS);
    exchange_case x;
    rank k;
    cuda_exchange *e = open_rank(&k, &x, &p, SILENT_MS);
    OK(cudaGraphLaunch(k.graph, k.stream)); /* all alive */
    OK(cudaStreamSynchronize(k.stream));
    CHECK_STATUS(cuda_exchange_check(e), BASE_OK);
    if (k.index == last) {
        base_sleep_us((int64_t)(SILENT_MS + LATE_MS) * 1000);
        return;
    }
    for (int32_t again = 0; again < 2; again++) {
        const int64_t begun = base_now_us();
        OK(cudaGraphLaunch(k.graph, k.stream));
        OK(cudaStreamSynchronize(k.stream));
        const int64_t took_ms = (base_now_us() - begun) / 1000;
        assert_in_range(took_ms, again == 0 ? SILENT_MS : 0, SILENT_MS + LATE_MS);
        CHECK_STATUS(cuda_exchange_check(e), BASE_PEER_LOST);
        char name[24];
        (void)snprintf(name, sizeof name, "rank %d", last);
        CHECK_ERROR_NAMES(name);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest exact[] = {
        cmocka_unit_test(every_word_is_what_ops_make_of_all_ranks),
        cmocka_unit_test(what_no_rank_can_do_is_refused_on_all),
        cmocka_unit_test(windows_of_another_shape_are_refused_on_all),
    };
    const struct CMUnitTest silent[] = {
        cmocka_unit_test(a_silent_rank_is_named_in_time),
    };
    const bool is_silent = argc > 1 && strcmp(argv[1], "silent") == 0;
    int level = 0;
    int n_devices = 0;

    if (parity_cuda_absent()) {
        return TEST_SKIPPED;
    }
    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS ||
        comm_mpi_create(&base_heap, &the_comm) != BASE_OK ||
        cudaGetDeviceCount(&n_devices) != cudaSuccess ||
        cudaSetDevice(comm_rank(the_comm) % n_devices) != cudaSuccess) {
        return 1;
    }
    const int n_failed = is_silent ? cmocka_run_group_tests(silent, NULL, NULL)
                                   : cmocka_run_group_tests(exact, NULL, NULL);
    if (is_silent) {
        (void)fflush(stdout);
        _exit(n_failed); /* as a worker does: MPI_Finalize would wait for the lost peer */
    }
    comm_destroy(the_comm);
    MPI_Finalize();
    return n_failed;
}
