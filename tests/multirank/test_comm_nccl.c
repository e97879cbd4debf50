/* Collectives between GPUs as ops of a context: the right bytes, called one by one, recorded and replayed.
 *
 * usage: mpirun -n N multirank.test_comm_nccl [lsa]     ranks share GPUs where there are fewer; skips where there is none
 *
 *   lsa    the one-shot exchange in front of NCCL, which has what is too long */
#include "kernels/comm/comm_merge.h"
#include "kernels/comm/comm_nccl.h"

#include "base/alloc.h"
#include "base/log.h"
#include "kernels/device.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/test.h"
#include "worker/boot/boot_mpi.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 20000, N_REPLAYS = 3 };

static const size_t sizes[] = {4, 4 * 1032, 7 * 1024 + 3, 1 << 20, (1 << 20) + 4};

static struct {
    boot_world world;
    comm *host;
    comm *gpus;
    kern_ctx *ctx;
    bool with_lsa;
} the;

static uint8_t byte_of(int32_t rank, size_t i, int32_t turn)
{
    return (uint8_t)((size_t)rank * 37 + i * 7 + i / 251 + (size_t)turn * 101);
}

static void fill(uint8_t *bytes, size_t n_bytes, int32_t rank, int32_t turn)
{
    for (size_t i = 0; i < n_bytes; i++) {
        bytes[i] = byte_of(rank, i, turn);
    }
}

static void check(const uint8_t *bytes, size_t n_bytes, int32_t rank, int32_t turn)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (bytes[i] != byte_of(rank, i, turn)) {
            fail_msg("byte %zu of %zu from rank %d is %d, want %d", i, n_bytes, rank, bytes[i],
                     byte_of(rank, i, turn));
        }
    }
}

static uint8_t *mirror(size_t n_bytes)
{
    uint8_t *m = kern_mirror(the.ctx)->get(kern_mirror(the.ctx)->ctx, n_bytes);
    assert_non_null(m);
    return m;
}

static void end_mirror(void *m)
{
    kern_mirror(the.ctx)->put(kern_mirror(the.ctx)->ctx, m);
}

static void all_gather_collects_every_rank_in_place_too(void **state)
{
    (void)state;
    const int32_t rank = the.world.rank;
    const size_t n = (size_t)the.world.n_ranks;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t n_bytes = sizes[s];
        uint8_t *mine = mirror(n_bytes);
        uint8_t *all = mirror(n_bytes * n);
        for (int32_t in_place = 0; in_place < 2; in_place++) {
            uint8_t *from = in_place ? all + (size_t)rank * n_bytes : mine;
            fill(from, n_bytes, rank, in_place);
            CHECK_STATUS(kern_send(the.ctx, from, n_bytes), BASE_OK);
            CHECK_STATUS(comm_all_gather(the.gpus, from, all, n_bytes, TIMEOUT_MS), BASE_OK);
            CHECK_STATUS(kern_fetch(the.ctx, all, n_bytes * n), BASE_OK);
            for (size_t r = 0; r < n; r++) {
                check(all + r * n_bytes, n_bytes, (int32_t)r, in_place);
            }
        }
        end_mirror(all);
        end_mirror(mine);
    }
}

static void broadcast_reaches_every_rank_from_every_root(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        uint8_t *bytes = mirror(sizes[s]);
        for (int32_t root = 0; root < the.world.n_ranks; root++) {
            fill(bytes, sizes[s], the.world.rank, 5);
            CHECK_STATUS(kern_send(the.ctx, bytes, sizes[s]), BASE_OK);
            CHECK_STATUS(comm_broadcast(the.gpus, bytes, sizes[s], root, TIMEOUT_MS), BASE_OK);
            CHECK_STATUS(kern_fetch(the.ctx, bytes, sizes[s]), BASE_OK);
            check(bytes, sizes[s], root, 5);
        }
        end_mirror(bytes);
    }
}

/* Rank r gets r + 2 units, the first none. */
static void parts_of(int32_t *begins)
{
    begins[0] = 0;
    for (int32_t r = 0; r < the.world.n_ranks; r++) {
        begins[r + 1] = begins[r] + (r == 0 ? 0 : r + 2);
    }
}

static void all_to_all_brings_every_rank_its_part(void **state)
{
    (void)state;
    const int32_t rank = the.world.rank;
    const size_t n = (size_t)the.world.n_ranks;
    int32_t begins[64];
    parts_of(begins);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t unit = sizes[s];
        const size_t n_own = unit * (size_t)(begins[rank + 1] - begins[rank]);
        uint8_t *send = mirror(unit * (size_t)begins[n]);
        uint8_t *got = mirror(n_own * n + 1);
        fill(send, unit * (size_t)begins[n], rank, 3);
        CHECK_STATUS(kern_send(the.ctx, send, unit * (size_t)begins[n]), BASE_OK);
        CHECK_STATUS(comm_all_to_all(the.gpus, send, got, begins, unit, TIMEOUT_MS), BASE_OK);
        CHECK_STATUS(kern_fetch(the.ctx, got, n_own * n), BASE_OK);
        for (size_t i = 0; i < n_own * n; i++) {
            const size_t at = unit * (size_t)begins[rank] + i % n_own;
            assert_int_equal(got[i], byte_of((int32_t)(i / n_own), at, 3));
        }
        end_mirror(got);
        end_mirror(send);
    }
}

/* Whole numbers, which add up exactly in any order; then any, whose sum is the same on every rank. */
static void sum_is_that_of_all_ranks_and_the_same_everywhere(void **state)
{
    static const int64_t counts[] = {1, 4096, 100003, 300001};
    (void)state;
    const int32_t n_ranks = the.world.n_ranks;
    for (size_t s = 0; s < sizeof counts / sizeof counts[0]; s++) {
        const int64_t n = counts[s];
        const size_t n_bytes = (size_t)n * sizeof(float);
        float *x = (float *)(void *)mirror(n_bytes * (size_t)n_ranks);
        for (int32_t exact = 0; exact < 2; exact++) {
            for (int64_t i = 0; i < n; i++) {
                const float value = (float)((i * 7 + the.world.rank * 5) % 23 - 11);
                x[i] = exact ? value : value / 7.0f;
            }
            CHECK_STATUS(kern_send(the.ctx, x, n_bytes), BASE_OK);
            CHECK_STATUS(comm_sum(the.gpus, x, n, NULL, TIMEOUT_MS), BASE_OK);
            CHECK_STATUS(kern_fetch(the.ctx, x, n_bytes), BASE_OK);
            for (int64_t i = 0; i < n && exact; i++) {
                float want = 0.0f;
                for (int32_t r = 0; r < n_ranks; r++) {
                    want += (float)((i * 7 + r * 5) % 23 - 11);
                }
                assert_true(x[i] == want);
            }
            float *all = calloc((size_t)n_ranks, n_bytes);
            assert_non_null(all);
            CHECK_STATUS(comm_all_gather(the.host, x, all, n_bytes, TIMEOUT_MS), BASE_OK);
            for (int32_t r = 0; r < n_ranks; r++) {
                assert_memory_equal(all + r * n, x, n_bytes);
            }
            free(all);
        }
        end_mirror(x);
    }
}

enum { TOKENS = 3, HEADS = 8, DIM = 128, PARTIAL = TOKENS * HEADS * (DIM + 1) };

/* The own heads of all ranks' partials, in the bits of the all-gather and merge of all heads. */
static void merge_of_own_heads_is_that_of_all(void **state)
{
    (void)state;
    const int32_t rank = the.world.rank;
    const int32_t n = the.world.n_ranks;
    const size_t n_bytes = PARTIAL * sizeof(float);
    int32_t begins[64] = {0};
    float *all = (float *)(void *)mirror(n_bytes * (size_t)n);
    float *received = (float *)(void *)mirror(n_bytes * (size_t)n);
    float *room = (float *)(void *)mirror(n_bytes);
    float *want = (float *)(void *)mirror(n_bytes);
    float *got = (float *)(void *)mirror(n_bytes);
    for (int32_t r = 0; r < n; r++) {
        begins[r + 1] = HEADS * (r + 1) / n;
    }
    for (int32_t i = 0; i < PARTIAL; i++) {
        all[rank * PARTIAL + i] = (float)((i * 7 + rank * 5) % 23) * 0.26f - 2.0f;
    }
    CHECK_STATUS(kern_send(the.ctx, all + rank * PARTIAL, n_bytes), BASE_OK);
    const kern_merge_args whole = {.partials = all,
                                   .rank_stride = PARTIAL,
                                   .o = want,
                                   .n_ranks = n,
                                   .rows = TOKENS * HEADS,
                                   .head_dim = DIM};
    CHECK_STATUS(comm_merge(the.gpus, the.ctx, &whole, TIMEOUT_MS), BASE_OK);
    const int32_t own = begins[rank + 1] - begins[rank];
    const kern_deal_args deal = {.x = all + rank * PARTIAL,
                                 .y = room,
                                 .begins = begins,
                                 .n_ranks = n,
                                 .n_tokens = TOKENS,
                                 .n_heads = HEADS,
                                 .head_dim = DIM};
    const kern_merge_args merge = {.partials = received,
                                   .rank_stride = (int64_t)TOKENS * own * (DIM + 1),
                                   .o = got,
                                   .n_ranks = n,
                                   .rows = TOKENS * own,
                                   .head_dim = DIM};
    CHECK_STATUS(comm_merge_own(the.gpus, the.ctx, &deal, &merge, TIMEOUT_MS), BASE_OK);
    CHECK_STATUS(kern_fetch(the.ctx, want, n_bytes), BASE_OK);
    CHECK_STATUS(kern_fetch(the.ctx, got, n_bytes), BASE_OK);
    for (int32_t t = 0; t < TOKENS; t++) {
        assert_memory_equal(got + t * own * DIM, want + (t * HEADS + begins[rank]) * DIM,
                            (size_t)own * DIM * sizeof *got);
    }
    end_mirror(got);
    end_mirror(want);
    end_mirror(room);
    end_mirror(received);
    end_mirror(all);
}

/* The pair of all-reduces against the op, on every kind of row: all ranks, some, none. */
static void the_textbooks_merge_agrees_within_the_tolerance(void **state)
{
    (void)state;
    enum { ROWS = 24, STRIDE = ROWS * (DIM + 1) };
    const int32_t rank = the.world.rank;
    const int32_t n = the.world.n_ranks;
    comm *pair = NULL;
    const comm_nccl_options options = {.host = the.host,
                                       .ctx = the.ctx,
                                       .who = "a rank",
                                       .way = COMM_NCCL_AR,
                                       .shared_gpu = kern_gpu_count() < the.world.n_local};
    CHECK_STATUS(comm_nccl_create(&options, &base_heap, &pair), BASE_OK);
    assert_string_equal(comm_name(pair), "nccl-ar");
    float *all = (float *)(void *)mirror(STRIDE * sizeof(float) * (size_t)n);
    float *want = (float *)(void *)mirror(STRIDE * sizeof(float));
    float *got = (float *)(void *)mirror(STRIDE * sizeof(float));
    for (int32_t way = 0; way < 2; way++) {
        float *mine = all + rank * STRIDE;
        for (int32_t i = 0; i < STRIDE; i++) {
            mine[i] = (float)((i * 7 + rank * 5) % 23) * 0.26f - 2.0f;
        }
        for (int32_t row = 0; row < ROWS; row++) {
            if (row % 3 == 0 || (row % 3 == 1 && rank == 0)) {
                mine[ROWS * DIM + row] = -INFINITY;
                mine[row * DIM] = NAN; /* adds nothing */
            }
        }
        CHECK_STATUS(kern_send(the.ctx, mine, STRIDE * sizeof(float)), BASE_OK);
        float *to = way == 0 ? want : got;
        const kern_merge_args args = {.partials = all,
                                      .rank_stride = STRIDE,
                                      .o = to,
                                      .lse = to + ROWS * DIM,
                                      .n_ranks = n,
                                      .rows = ROWS,
                                      .head_dim = DIM};
        CHECK_STATUS(comm_merge(way == 0 ? the.gpus : pair, the.ctx, &args, TIMEOUT_MS), BASE_OK);
        CHECK_STATUS(kern_fetch(the.ctx, to, STRIDE * sizeof(float)), BASE_OK);
    }
    for (int32_t i = 0; i < STRIDE; i++) {
        const int32_t row = i < ROWS * DIM ? i / DIM : i - ROWS * DIM;
        if (row % 3 == 0) {
            assert_true(got[i] == (i < ROWS * DIM ? 0.0f : -INFINITY));
        }
        assert_true(got[i] == want[i] || fabsf(got[i] - want[i]) <= 1e-5f);
    }
    end_mirror(got);
    end_mirror(want);
    end_mirror(all);
    comm_destroy(pair);
}

typedef struct exchange {
    uint8_t *all;
    uint8_t *word;
    uint8_t *parts; /* what all_to_all brings */
    float *sum;
    size_t n_bytes;
} exchange;

/* What a decode step does between its ops. */
static base_status exchange_ops(void *arg)
{
    const exchange *x = arg;
    const uint8_t *mine = x->all + (size_t)the.world.rank * x->n_bytes;
    base_status st = BASE_OK;
    for (int32_t layer = 0; layer < 3 && st == BASE_OK; layer++) {
        st = comm_all_gather(the.gpus, mine, x->all, x->n_bytes, TIMEOUT_MS);
        if (st == BASE_OK) {
            st = comm_all_to_all(the.gpus, x->all, x->parts, NULL, x->n_bytes, TIMEOUT_MS);
        }
    }
    if (st == BASE_OK) {
        st = comm_sum(the.gpus, x->sum, 1, NULL, TIMEOUT_MS);
    }
    return st == BASE_OK ? comm_broadcast(the.gpus, x->word, sizeof(int32_t), 0, TIMEOUT_MS) : st;
}

/* The bytes are new each time, the recording is not.  Between replays a call that is not recorded. */
static void what_was_recorded_exchanges_what_is_there_when_it_is_replayed(void **state)
{
    (void)state;
    const int32_t n = the.world.n_ranks;
    exchange x = {.n_bytes = 4 * 1032};
    x.all = mirror(x.n_bytes * (size_t)n);
    x.word = mirror(sizeof(int32_t));
    x.parts = mirror(x.n_bytes * (size_t)n);
    x.sum = (float *)(void *)mirror(sizeof *x.sum);
    const kern_replay_key key = {.owner = &x};
    for (int32_t turn = 0; turn <= N_REPLAYS; turn++) {
        bool done = false;
        uint8_t *mine = x.all + (size_t)the.world.rank * x.n_bytes;
        fill(mine, x.n_bytes, the.world.rank, turn);
        fill(x.word, sizeof(int32_t), the.world.rank, turn);
        CHECK_STATUS(kern_send(the.ctx, mine, x.n_bytes), BASE_OK);
        CHECK_STATUS(kern_send(the.ctx, x.word, sizeof(int32_t)), BASE_OK);
        *x.sum = (float)(the.world.rank + turn);
        CHECK_STATUS(kern_send(the.ctx, x.sum, sizeof *x.sum), BASE_OK);
        CHECK_STATUS(kern_replay(the.ctx, &key, &done), BASE_OK);
        assert_int_equal(done, turn > 0);
        if (!done) {
            CHECK_STATUS(kern_record_begin(the.ctx), BASE_OK);
            CHECK_STATUS(kern_record_end(the.ctx, &key, exchange_ops(&x)), BASE_OK);
        }
        CHECK_STATUS(kern_fetch(the.ctx, x.all, x.n_bytes * (size_t)n), BASE_OK);
        CHECK_STATUS(kern_fetch(the.ctx, x.word, sizeof(int32_t)), BASE_OK);
        for (int32_t r = 0; r < n; r++) {
            check(x.all + (size_t)r * x.n_bytes, x.n_bytes, r, turn);
        }
        check(x.word, sizeof(int32_t), 0, turn);
        CHECK_STATUS(kern_fetch(the.ctx, x.parts, x.n_bytes * (size_t)n), BASE_OK);
        CHECK_STATUS(kern_fetch(the.ctx, x.sum, sizeof *x.sum), BASE_OK);
        for (int32_t r = 0; r < n; r++) { /* all had gathered the same */
            check(x.parts + (size_t)r * x.n_bytes, x.n_bytes, the.world.rank, turn);
        }
        assert_true(*x.sum == (float)(n * (n - 1) / 2 + n * turn));
        CHECK_STATUS(comm_broadcast(the.gpus, x.word, sizeof(int32_t), n - 1, TIMEOUT_MS), BASE_OK);
    }
    end_mirror(x.sum);
    end_mirror(x.parts);
    end_mirror(x.word);
    end_mirror(x.all);
}

static void its_own_memory_is_the_contexts_too(void **state)
{
    (void)state;
    enum { N_BYTES = 1 << 16 };
    const base_alloc *memory = comm_memory(the.gpus);
    assert_non_null(memory);
    for (int32_t again = 0; again < 2; again++) {
        char *all = memory->get(memory->ctx, (size_t)N_BYTES * (size_t)the.world.n_ranks);
        assert_non_null(all);
        CHECK_STATUS(comm_all_gather(the.gpus, all + (size_t)the.world.rank * N_BYTES, all, N_BYTES,
                                     TIMEOUT_MS),
                     BASE_OK);
        CHECK_STATUS(kern_wait(the.ctx), BASE_OK);
        memory->put(memory->ctx, all);
        CHECK_STATUS(comm_broadcast(the.gpus, all, 1, 0, TIMEOUT_MS), BASE_BAD_INPUT);
    }
}

static void memory_that_is_not_the_contexts_is_refused_without_a_collective(void **state)
{
    (void)state;
    uint8_t *bytes = mirror(64);
    char other[64];
    CHECK_STATUS(comm_broadcast(the.gpus, other, 64, 0, TIMEOUT_MS), BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(the.gpus, bytes, 65, 0, TIMEOUT_MS), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_gather(the.gpus, bytes, bytes, 64, TIMEOUT_MS), BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(the.gpus, bytes, 64, 0, TIMEOUT_MS), BASE_OK);
    CHECK_STATUS(comm_look(the.gpus), BASE_OK);
    assert_string_equal(comm_name(the.gpus), the.with_lsa ? "lsa" : "nccl-ag");
    assert_int_equal(comm_size(the.gpus), the.world.n_ranks);
    end_mirror(bytes);
}

static base_status start(void)
{
    base_status st = BASE_OK;
    const boot_launch launch = {NULL, NULL, NULL};

    BASE_TRY(st, out, boot_mpi_start(&launch, &the.world));
    BASE_TRY(st, out, comm_mpi_create(&base_heap, &the.host));
    BASE_TRY(st, out, gpu_ranks_open(&the.world, the.host, COMM_NCCL_AG, &the.ctx, &the.gpus));
    if (the.with_lsa) {
        st = gpu_ranks_add_lsa(the.host, the.ctx, DIM, &the.gpus);
    }
out:
    return st;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_gather_collects_every_rank_in_place_too),
        cmocka_unit_test(broadcast_reaches_every_rank_from_every_root),
        cmocka_unit_test(all_to_all_brings_every_rank_its_part),
        cmocka_unit_test(sum_is_that_of_all_ranks_and_the_same_everywhere),
        cmocka_unit_test(merge_of_own_heads_is_that_of_all),
        cmocka_unit_test(the_textbooks_merge_agrees_within_the_tolerance),
        cmocka_unit_test(what_was_recorded_exchanges_what_is_there_when_it_is_replayed),
        cmocka_unit_test(its_own_memory_is_the_contexts_too),
        cmocka_unit_test(memory_that_is_not_the_contexts_is_refused_without_a_collective),
    };
    the.with_lsa = argc > 1 && strcmp(argv[1], "lsa") == 0;
    base_log_init("test", BASE_LOG_INFO);
    if (kern_gpu_count() == 0) {
        printf("SKIP: no CUDA device\n");
        return TEST_SKIPPED;
    }
    if (start() != BASE_OK) {
        (void)fprintf(stderr, "%s\n", base_last_error());
        return 1;
    }
    const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_destroy(the.gpus);
    kern_ctx_destroy(the.ctx);
    comm_destroy(the.host);
    boot_mpi_end();
    return n_failed;
}
