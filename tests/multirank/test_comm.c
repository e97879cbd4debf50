/* Every rank runs this; a mode on the command line picks what they do together.
 *   test_comm exact     collectives give every rank the right bytes
 *   test_comm silent    the last rank stays silent: the others report it in time
 * mpirun stops all ranks when one fails. */
#include "kernels/comm/comm_merge.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "tests/multirank/collectives.h"
#include "tests/support/test.h"

#include <math.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TIMEOUT_MS        COLLECTIVES_TIMEOUT_MS
#define SILENT_TIMEOUT_MS 300
#define LATE_MS           500 /* how much later than its deadline a rank may report */

static comm *the_comm;

static void ranks_know_who_they_are(void **state)
{
    (void)state;
    int rank = -1;
    int size = -1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    assert_int_equal(comm_rank(the_comm), rank);
    assert_int_equal(comm_size(the_comm), size);
    assert_string_equal(comm_name(the_comm), "mpi");
}

/* Numbers whose sum depends on the order, and any count. */
static void sum_adds_in_rank_order(void **state)
{
    enum { MAX = 1003, EXTRA = 8 };
    static const int32_t counts[] = {0, 1, 3, 64, MAX};
    (void)state;
    const int32_t rank = comm_rank(the_comm);
    const int32_t size = comm_size(the_comm);
    float x[MAX + EXTRA];
    float room[MAX + EXTRA];
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        memset(x, 0, sizeof x);
        for (int32_t i = 0; i < counts[k]; i++) {
            x[i] = ldexpf((float)((i * 7 + rank * 5) % 23 - 11), (i + rank * 9) % 25);
        }
        CHECK_STATUS(comm_sum(the_comm, x, counts[k], room, TIMEOUT_MS), BASE_OK);
        for (int32_t i = 0; i < counts[k]; i++) {
            float want = 0.0f;
            for (int32_t r = 0; r < size; r++) {
                const float term = ldexpf((float)((i * 7 + r * 5) % 23 - 11), (i + r * 9) % 25);
                want = r == 0 ? term : want + term;
            }
            assert_true(x[i] == want);
        }
    }
}

static void bad_arguments_are_refused_without_a_collective(void **state)
{
    (void)state;
    char byte = 0;
    CHECK_STATUS(comm_broadcast(the_comm, &byte, 1, -1, TIMEOUT_MS), BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(the_comm, &byte, 1, comm_size(the_comm), TIMEOUT_MS),
                 BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(the_comm, &byte, 1, 0, 0), BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(the_comm, &byte, (size_t)1 << 31, 0, TIMEOUT_MS), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_gather(the_comm, &byte, &byte, (size_t)1 << 31, TIMEOUT_MS),
                 BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(the_comm, &byte, 1, 0, TIMEOUT_MS), BASE_OK);
}

/* Of rank r: o [ROWS][DIM], then lse [ROWS]. */
enum { ROWS = 5, DIM = 64, PARTIAL = ROWS * (DIM + 1) };

static void fill_partial(float *x, int32_t rank)
{
    for (int32_t i = 0; i < PARTIAL; i++) {
        x[i] = (float)((i * 7 + rank * 5) % 23) * 0.25f - 2.0f;
    }
}

static void merge_is_the_op_on_the_partials_of_all_ranks(void **state)
{
    (void)state;
    kern_ctx *ctx = NULL;
    const int32_t rank = comm_rank(the_comm);
    const int32_t n_ranks = comm_size(the_comm);
    float *gathered = calloc((size_t)n_ranks, PARTIAL * sizeof(float));
    float *own = calloc((size_t)n_ranks, PARTIAL * sizeof(float));
    float want[ROWS * DIM];
    float got[ROWS * DIM];
    assert_non_null(gathered);
    assert_non_null(own);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    for (int32_t r = 0; r < n_ranks; r++) {
        fill_partial(gathered + r * PARTIAL, r);
    }
    fill_partial(own + rank * PARTIAL, rank);
    kern_merge_args args = {.partials = gathered,
                            .rank_stride = PARTIAL,
                            .o = want,
                            .n_ranks = n_ranks,
                            .rows = ROWS,
                            .head_dim = DIM};
    CHECK_STATUS(kern_merge(ctx, &args), BASE_OK);
    args.partials = own;
    args.o = got;
    CHECK_STATUS(comm_merge(the_comm, ctx, &args, TIMEOUT_MS), BASE_OK);
    assert_memory_equal(got, want, sizeof got);
    kern_ctx_destroy(ctx);
    free(own);
    free(gathered);
}

/* Others take part when they have seen a file that the root makes behind its call: it would wait for them in vain. */
static void a_root_does_not_wait_until_a_short_broadcast_is_taken(void **state)
{
    (void)state;
    char path[64];
    uint8_t first[4000];
    uint8_t second[4000];
    const bool is_root = comm_rank(the_comm) == 0;
    (void)snprintf(path, sizeof path, "/tmp/ropewalk-comm-%d", (int)getppid()); /* mpirun */
    memset(first, 0, sizeof first);
    if (is_root) {
        collectives_fill(first, sizeof first, 0, 0);
        CHECK_STATUS(comm_broadcast(the_comm, first, sizeof first, 0, TIMEOUT_MS), BASE_OK);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        (void)fclose(f);
        memset(first, 0, sizeof first); /* which is the root's again */
    } else {
        for (int64_t i = 0; i < TIMEOUT_MS && access(path, F_OK) != 0; i++) {
            base_sleep_us(1000);
        }
        CHECK_STATUS(comm_broadcast(the_comm, first, sizeof first, 0, TIMEOUT_MS), BASE_OK);
        collectives_check(first, sizeof first, 0, 0);
    }
    collectives_fill(second, sizeof second, 0, 0);
    CHECK_STATUS(comm_broadcast(the_comm, second, sizeof second, 0, TIMEOUT_MS), BASE_OK);
    collectives_check(second, sizeof second, 0, 0);
    CHECK_STATUS(comm_all_gather(the_comm, first, second, 1, TIMEOUT_MS), BASE_OK);
    if (is_root) {
        (void)unlink(path);
    }
}

/* The last rank sleeps past everybody's deadline. */
static void a_silent_rank_is_reported_in_time_and_for_good(void **state)
{
    (void)state;
    char mine = 1;
    char all[16] = {0};
    if (comm_rank(the_comm) == comm_size(the_comm) - 1) {
        base_sleep_us((SILENT_TIMEOUT_MS + LATE_MS) * 1000 * 2);
        return;
    }
    const int64_t begun = base_now_us();
    CHECK_STATUS(comm_all_gather(the_comm, &mine, all, 1, SILENT_TIMEOUT_MS), BASE_PEER_LOST);
    const int64_t took_ms = (base_now_us() - begun) / 1000;
    assert_in_range(took_ms, SILENT_TIMEOUT_MS, SILENT_TIMEOUT_MS + LATE_MS);

    const int64_t again = base_now_us();
    CHECK_STATUS(comm_all_gather(the_comm, &mine, all, 1, TIMEOUT_MS), BASE_PEER_LOST);
    CHECK_STATUS(comm_broadcast(the_comm, &mine, 1, 0, TIMEOUT_MS), BASE_PEER_LOST);
    assert_true(base_now_us() - again < SILENT_TIMEOUT_MS * 1000);
}

int main(int argc, char **argv)
{
    collectives world = {.host = NULL};
    const struct CMUnitTest exact[] = {
        cmocka_unit_test(ranks_know_who_they_are),
        cmocka_unit_test_prestate(broadcast_reaches_every_rank_from_every_root, &world),
        cmocka_unit_test(a_root_does_not_wait_until_a_short_broadcast_is_taken),
        cmocka_unit_test_prestate(all_gather_collects_every_rank_in_place_too, &world),
        cmocka_unit_test(merge_is_the_op_on_the_partials_of_all_ranks),
        cmocka_unit_test_prestate(all_to_all_brings_every_rank_its_part, &world),
        cmocka_unit_test_prestate(sum_is_that_of_all_ranks_and_the_same_everywhere, &world),
        cmocka_unit_test(sum_adds_in_rank_order),
        cmocka_unit_test_prestate(merge_of_own_heads_is_that_of_all, &world),
        cmocka_unit_test(bad_arguments_are_refused_without_a_collective),
    };
    const struct CMUnitTest silent[] = {
        cmocka_unit_test(a_silent_rank_is_reported_in_time_and_for_good),
    };
    const bool is_silent = argc > 1 && strcmp(argv[1], "silent") == 0;
    int level = 0;

    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS ||
        comm_mpi_create(&base_heap, &the_comm) != BASE_OK ||
        kern_ctx_create_cpu(1, &base_heap, &world.ctx) != BASE_OK) {
        return 1;
    }
    world.host = the_comm;
    world.tensors = the_comm;
    const int n_failed = is_silent ? cmocka_run_group_tests(silent, NULL, NULL)
                                   : cmocka_run_group_tests(exact, NULL, NULL);
    kern_ctx_destroy(world.ctx);
    comm_destroy(the_comm);
    if (is_silent) {
        _exit(n_failed); /* as a worker does: MPI_Finalize would wait for the lost peer */
    }
    MPI_Finalize();
    return n_failed;
}
