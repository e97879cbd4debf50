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
#include "tests/multirank/collectives.h"
#include "tests/support/gpu_ranks.h"
#include "tests/support/test.h"
#include "worker/boot/boot_mpi.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = COLLECTIVES_TIMEOUT_MS, N_REPLAYS = 3 };

static struct {
    boot_world world;
    collectives comms;
    bool with_lsa;
} the;

enum { DIM = 128 };

/* The pair of all-reduces against the op, on every kind of row: all ranks, some, none. */
static void the_textbooks_merge_agrees_within_the_tolerance(void **state)
{
    (void)state;
    enum { ROWS = 24, STRIDE = ROWS * (DIM + 1) };
    const int32_t rank = the.world.rank;
    const int32_t n = the.world.n_ranks;
    comm *pair = NULL;
    const comm_nccl_options options = {.host = the.comms.host,
                                       .ctx = the.comms.ctx,
                                       .who = "a rank",
                                       .way = COMM_NCCL_AR,
                                       .shared_gpu = kern_gpu_count() < the.world.n_local};
    CHECK_STATUS(comm_nccl_create(&options, &base_heap, &pair), BASE_OK);
    assert_string_equal(comm_name(pair), "nccl-ar");
    float *all = collectives_get(&the.comms, STRIDE * sizeof(float) * (size_t)n);
    float *want = collectives_get(&the.comms, STRIDE * sizeof(float));
    float *got = collectives_get(&the.comms, STRIDE * sizeof(float));
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
        CHECK_STATUS(kern_send(the.comms.ctx, mine, STRIDE * sizeof(float)), BASE_OK);
        float *to = way == 0 ? want : got;
        const kern_merge_args args = {.partials = all,
                                      .rank_stride = STRIDE,
                                      .o = to,
                                      .lse = to + ROWS * DIM,
                                      .n_ranks = n,
                                      .rows = ROWS,
                                      .head_dim = DIM};
        CHECK_STATUS(
            comm_merge(way == 0 ? the.comms.tensors : pair, the.comms.ctx, &args, TIMEOUT_MS),
            BASE_OK);
        CHECK_STATUS(kern_fetch(the.comms.ctx, to, STRIDE * sizeof(float)), BASE_OK);
    }
    for (int32_t i = 0; i < STRIDE; i++) {
        const int32_t row = i < ROWS * DIM ? i / DIM : i - ROWS * DIM;
        if (row % 3 == 0) {
            assert_true(got[i] == (i < ROWS * DIM ? 0.0f : -INFINITY));
        }
        assert_true(got[i] == want[i] || fabsf(got[i] - want[i]) <= 1e-5f);
    }
    collectives_put(&the.comms, got);
    collectives_put(&the.comms, want);
    collectives_put(&the.comms, all);
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
        st = comm_all_gather(the.comms.tensors, mine, x->all, x->n_bytes, TIMEOUT_MS);
        if (st == BASE_OK) {
            st = comm_all_to_all(the.comms.tensors, x->all, x->parts, NULL, x->n_bytes, TIMEOUT_MS);
        }
    }
    if (st == BASE_OK) {
        st = comm_sum(the.comms.tensors, x->sum, 1, NULL, TIMEOUT_MS);
    }
    return st == BASE_OK
               ? comm_broadcast(the.comms.tensors, x->word, sizeof(int32_t), 0, TIMEOUT_MS)
               : st;
}

/* The bytes are new each time, the recording is not.  Between replays a call that is not recorded. */
static void what_was_recorded_exchanges_what_is_there_when_it_is_replayed(void **state)
{
    (void)state;
    const int32_t n = the.world.n_ranks;
    exchange x = {.n_bytes = 4 * 1032};
    x.all = collectives_get(&the.comms, x.n_bytes * (size_t)n);
    x.word = collectives_get(&the.comms, sizeof(int32_t));
    x.parts = collectives_get(&the.comms, x.n_bytes * (size_t)n);
    x.sum = collectives_get(&the.comms, sizeof *x.sum);
    const kern_replay_key key = {.owner = &x};
    for (int32_t turn = 0; turn <= N_REPLAYS; turn++) {
        bool done = false;
        uint8_t *mine = x.all + (size_t)the.world.rank * x.n_bytes;
        collectives_fill(mine, x.n_bytes, the.world.rank, turn);
        collectives_fill(x.word, sizeof(int32_t), the.world.rank, turn);
        CHECK_STATUS(kern_send(the.comms.ctx, mine, x.n_bytes), BASE_OK);
        CHECK_STATUS(kern_send(the.comms.ctx, x.word, sizeof(int32_t)), BASE_OK);
        *x.sum = (float)(the.world.rank + turn);
        CHECK_STATUS(kern_send(the.comms.ctx, x.sum, sizeof *x.sum), BASE_OK);
        CHECK_STATUS(kern_replay(the.comms.ctx, &key, &done), BASE_OK);
        assert_int_equal(done, turn > 0);
        if (!done) {
            CHECK_STATUS(kern_record_begin(the.comms.ctx), BASE_OK);
            CHECK_STATUS(kern_record_end(the.comms.ctx, &key, exchange_ops(&x)), BASE_OK);
        }
        CHECK_STATUS(kern_fetch(the.comms.ctx, x.all, x.n_bytes * (size_t)n), BASE_OK);
        CHECK_STATUS(kern_fetch(the.comms.ctx, x.word, sizeof(int32_t)), BASE_OK);
        for (int32_t r = 0; r < n; r++) {
            collectives_check(x.all + (size_t)r * x.n_bytes, x.n_bytes, r, turn);
        }
        collectives_check(x.word, sizeof(int32_t), 0, turn);
        CHECK_STATUS(kern_fetch(the.comms.ctx, x.parts, x.n_bytes * (size_t)n), BASE_OK);
        CHECK_STATUS(kern_fetch(the.comms.ctx, x.sum, sizeof *x.sum), BASE_OK);
        for (int32_t r = 0; r < n; r++) { /* all had gathered the same */
            collectives_check(x.parts + (size_t)r * x.n_bytes, x.n_bytes, the.world.rank, turn);
        }
        assert_true(*x.sum == (float)(n * (n - 1) / 2 + n * turn));
        CHECK_STATUS(comm_broadcast(the.comms.tensors, x.word, sizeof(int32_t), n - 1, TIMEOUT_MS),
                     BASE_OK);
    }
    collectives_put(&the.comms, x.sum);
    collectives_put(&the.comms, x.parts);
    collectives_put(&the.comms, x.word);
    collectives_put(&the.comms, x.all);
}

static void its_own_memory_is_the_contexts_too(void **state)
{
    (void)state;
    enum { N_BYTES = 1 << 16 };
    const base_alloc *memory = comm_memory(the.comms.tensors);
    assert_non_null(memory);
    for (int32_t again = 0; again < 2; again++) {
        char *all = memory->get(memory->ctx, (size_t)N_BYTES * (size_t)the.world.n_ranks);
        assert_non_null(all);
        CHECK_STATUS(comm_all_gather(the.comms.tensors, all + (size_t)the.world.rank * N_BYTES, all,
                                     N_BYTES, TIMEOUT_MS),
                     BASE_OK);
        CHECK_STATUS(kern_wait(the.comms.ctx), BASE_OK);
        memory->put(memory->ctx, all);
        CHECK_STATUS(comm_broadcast(the.comms.tensors, all, 1, 0, TIMEOUT_MS), BASE_BAD_INPUT);
    }
}

static void memory_that_is_not_the_contexts_is_refused_without_a_collective(void **state)
{
    (void)state;
    uint8_t *bytes = collectives_get(&the.comms, 64);
    char other[64];
    CHECK_STATUS(comm_broadcast(the.comms.tensors, other, 64, 0, TIMEOUT_MS), BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(the.comms.tensors, bytes, 65, 0, TIMEOUT_MS), BASE_BAD_INPUT);
    CHECK_STATUS(comm_all_gather(the.comms.tensors, bytes, bytes, 64, TIMEOUT_MS), BASE_BAD_INPUT);
    CHECK_STATUS(comm_broadcast(the.comms.tensors, bytes, 64, 0, TIMEOUT_MS), BASE_OK);
    CHECK_STATUS(comm_look(the.comms.tensors), BASE_OK);
    assert_string_equal(comm_name(the.comms.tensors), the.with_lsa ? "lsa" : "nccl-ag");
    assert_int_equal(comm_size(the.comms.tensors), the.world.n_ranks);
    collectives_put(&the.comms, bytes);
}

static base_status start(void)
{
    base_status st = BASE_OK;
    const boot_launch launch = {NULL, NULL, NULL};

    BASE_TRY(st, out, boot_mpi_start(&launch, &the.world));
    BASE_TRY(st, out, comm_mpi_create(&base_heap, &the.comms.host));
    BASE_TRY(st, out,
             gpu_ranks_open(&the.world, the.comms.host, COMM_NCCL_AG, &the.comms.ctx,
                            &the.comms.tensors));
    if (the.with_lsa) {
        st = gpu_ranks_add_lsa(the.comms.host, the.comms.ctx, DIM, &the.comms.tensors);
    }
out:
    return st;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(all_gather_collects_every_rank_in_place_too, &the.comms),
        cmocka_unit_test_prestate(broadcast_reaches_every_rank_from_every_root, &the.comms),
        cmocka_unit_test_prestate(all_to_all_brings_every_rank_its_part, &the.comms),
        cmocka_unit_test_prestate(sum_is_that_of_all_ranks_and_the_same_everywhere, &the.comms),
        cmocka_unit_test_prestate(merge_of_own_heads_is_that_of_all, &the.comms),
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
    comm_destroy(the.comms.tensors);
    kern_ctx_destroy(the.comms.ctx);
    comm_destroy(the.comms.host);
    boot_mpi_end();
    return n_failed;
}
