/* Every rank runs this; a mode on the command line picks what they do together.
 *   test_comm exact     collectives give every rank the right bytes
 *   test_comm silent    the last rank stays silent: the others report it in time
 * mpirun stops all ranks when one fails. */
#include "kernels/comm/comm_merge.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "tests/support/test.h"

#include <math.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TIMEOUT_MS        20000 /* a slow machine is not a lost peer */
#define SILENT_TIMEOUT_MS 300
#define LATE_MS           500 /* how much later than its deadline a rank may report */

static const size_t sizes[] = {0, 1, 7 * 1024 + 3, 4 * 1024 * 1024};

static comm *the_comm;

static uint8_t byte_of(int32_t rank, size_t i)
{
    return (uint8_t)((size_t)rank * 37 + i * 7 + i / 251); /* no shift of it is itself */
}

static void fill(uint8_t *bytes, size_t n_bytes, int32_t rank)
{
    for (size_t i = 0; i < n_bytes; i++) {
        bytes[i] = byte_of(rank, i);
    }
}

static void check(const uint8_t *bytes, size_t n_bytes, int32_t rank)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (bytes[i] != byte_of(rank, i)) {
            fail_msg("byte %zu of %zu from rank %d is %d, want %d", i, n_bytes, rank, bytes[i],
                     byte_of(rank, i));
        }
    }
}

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

static void broadcast_reaches_every_rank_from_every_root(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        uint8_t *bytes = malloc(sizes[s] + 1);
        assert_non_null(bytes);
        for (int32_t root = 0; root < comm_size(the_comm); root++) {
            const bool is_root = comm_rank(the_comm) == root;
            memset(bytes, 0x5a, sizes[s] + 1);
            if (is_root) {
                fill(bytes, sizes[s], root);
            }
            CHECK_STATUS(comm_broadcast(the_comm, bytes, sizes[s], root, TIMEOUT_MS), BASE_OK);
            check(bytes, sizes[s], root);
            assert_int_equal(bytes[sizes[s]], 0x5a);
        }
        free(bytes);
    }
}

static void all_gather_collects_every_rank_in_place_too(void **state)
{
    (void)state;
    const int32_t rank = comm_rank(the_comm);
    const size_t size = (size_t)comm_size(the_comm);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t n_bytes = sizes[s];
        uint8_t *mine = malloc(n_bytes + 1);
        uint8_t *all = malloc(n_bytes * size + 1);
        assert_non_null(mine);
        assert_non_null(all);
        for (int32_t in_place = 0; in_place < 2; in_place++) {
            memset(all, 0x5a, n_bytes * size + 1);
            uint8_t *from = in_place ? all + (size_t)rank * n_bytes : mine;
            fill(from, n_bytes, rank);
            CHECK_STATUS(comm_all_gather(the_comm, from, all, n_bytes, TIMEOUT_MS), BASE_OK);
            for (size_t r = 0; r < size; r++) {
                check(all + r * n_bytes, n_bytes, (int32_t)r);
            }
            assert_int_equal(all[n_bytes * size], 0x5a);
        }
        free(mine);
        free(all);
    }
}

/* Rank r gets r + 2 units of three bytes, the first rank none. */
static void all_to_all_brings_every_rank_its_part(void **state)
{
    enum { UNIT = 3, MAX = 8 };
    (void)state;
    const int32_t rank = comm_rank(the_comm);
    const int32_t size = comm_size(the_comm);
    int32_t begins[MAX + 1] = {0};
    uint8_t send[UNIT * MAX * MAX];
    uint8_t got[UNIT * MAX * MAX];
    assert_true(size < MAX);
    for (int32_t r = 0; r < size; r++) {
        begins[r + 1] = begins[r] + (r == 0 ? 0 : r + 2);
    }
    fill(send, sizeof send, rank);
    memset(got, 0x5a, sizeof got);
    CHECK_STATUS(comm_all_to_all(the_comm, send, got, begins, UNIT, TIMEOUT_MS), BASE_OK);
    const size_t n_own = (size_t)UNIT * (size_t)(begins[rank + 1] - begins[rank]);
    for (size_t i = 0; i < n_own * (size_t)size; i++) {
        const size_t at = (size_t)UNIT * (size_t)begins[rank] + i % n_own;
        assert_int_equal(got[i], byte_of((int32_t)(i / n_own), at));
    }
    assert_int_equal(got[n_own * (size_t)size], 0x5a);
    CHECK_STATUS(comm_all_to_all(the_comm, send, got, NULL, UNIT, TIMEOUT_MS), BASE_OK);
    for (int32_t r = 0; r < size; r++) {
        for (size_t i = 0; i < UNIT; i++) {
            assert_int_equal(got[(size_t)r * UNIT + i], byte_of(r, (size_t)rank * UNIT + i));
        }
    }
}

/* Numbers whose sum depends on the order, and any count. */
static void sum_adds_in_rank_order_and_is_the_same_everywhere(void **state)
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

/* Rank r's heads of all ranks, in the bits of a merge of all heads. */
static void merge_of_own_heads_is_that_of_all(void **state)
{
    enum { TOKENS = 3, HEADS = 7, N = TOKENS * HEADS * (DIM + 1), MAX = 4 };
    (void)state;
    kern_ctx *ctx = NULL;
    const int32_t rank = comm_rank(the_comm);
    const int32_t n_ranks = comm_size(the_comm);
    int32_t begins[MAX + 1] = {0};
    float *all = calloc(MAX, N * sizeof *all);
    float *received = calloc(MAX, N * sizeof *received);
    float *room = calloc(N, sizeof *room);
    float want[TOKENS * HEADS * DIM];
    float got[TOKENS * HEADS * DIM];
    assert_true(n_ranks <= MAX && all != NULL && received != NULL && room != NULL);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    for (int32_t r = 0; r < n_ranks; r++) {
        begins[r + 1] = HEADS * (r + 1) / n_ranks;
        for (int32_t i = 0; i < N; i++) {
            all[r * N + i] = (float)((i * 7 + r * 5) % 23) * 0.25f - 2.0f;
        }
    }
    kern_merge_args whole = {.partials = all,
                             .rank_stride = N,
                             .o = want,
                             .n_ranks = n_ranks,
                             .rows = TOKENS * HEADS,
                             .head_dim = DIM};
    CHECK_STATUS(kern_merge(ctx, &whole), BASE_OK);
    const int32_t own = begins[rank + 1] - begins[rank];
    const kern_deal_args deal = {.x = all + rank * N,
                                 .y = room,
                                 .begins = begins,
                                 .n_ranks = n_ranks,
                                 .n_tokens = TOKENS,
                                 .n_heads = HEADS,
                                 .head_dim = DIM};
    const kern_merge_args merge = {.partials = received,
                                   .rank_stride = (int64_t)TOKENS * own * (DIM + 1),
                                   .o = got,
                                   .n_ranks = n_ranks,
                                   .rows = TOKENS * own,
                                   .head_dim = DIM};
    CHECK_STATUS(comm_merge_own(the_comm, ctx, &deal, &merge, TIMEOUT_MS), BASE_OK);
    for (int32_t t = 0; t < TOKENS; t++) {
        assert_memory_equal(got + t * own * DIM, want + (t * HEADS + begins[rank]) * DIM,
                            (size_t)own * DIM * sizeof *got);
    }
    kern_ctx_destroy(ctx);
    free(room);
    free(received);
    free(all);
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
        fill(first, sizeof first, 0);
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
        check(first, sizeof first, 0);
    }
    fill(second, sizeof second, 0);
    CHECK_STATUS(comm_broadcast(the_comm, second, sizeof second, 0, TIMEOUT_MS), BASE_OK);
    check(second, sizeof second, 0);
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
    const struct CMUnitTest exact[] = {
        cmocka_unit_test(ranks_know_who_they_are),
        cmocka_unit_test(broadcast_reaches_every_rank_from_every_root),
        cmocka_unit_test(a_root_does_not_wait_until_a_short_broadcast_is_taken),
        cmocka_unit_test(all_gather_collects_every_rank_in_place_too),
        cmocka_unit_test(merge_is_the_op_on_the_partials_of_all_ranks),
        cmocka_unit_test(all_to_all_brings_every_rank_its_part),
        cmocka_unit_test(sum_adds_in_rank_order_and_is_the_same_everywhere),
        cmocka_unit_test(merge_of_own_heads_is_that_of_all),
        cmocka_unit_test(bad_arguments_are_refused_without_a_collective),
    };
    const struct CMUnitTest silent[] = {
        cmocka_unit_test(a_silent_rank_is_reported_in_time_and_for_good),
    };
    const bool is_silent = argc > 1 && strcmp(argv[1], "silent") == 0;
    int level = 0;

    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS ||
        comm_mpi_create(&base_heap, &the_comm) != BASE_OK) {
        return 1;
    }
    const int n_failed = is_silent ? cmocka_run_group_tests(silent, NULL, NULL)
                                   : cmocka_run_group_tests(exact, NULL, NULL);
    comm_destroy(the_comm);
    if (is_silent) {
        _exit(n_failed); /* as a worker does: MPI_Finalize would wait for the lost peer */
    }
    MPI_Finalize();
    return n_failed;
}
