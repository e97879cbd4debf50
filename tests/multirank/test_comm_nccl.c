/* NCCL's collectives as ops of a context: the right bytes, called one by one, recorded and replayed.
 *
 * usage: mpirun -n N multirank.test_comm_nccl     ranks share GPUs where there are fewer; skips where there is none */
#include "kernels/comm/comm_nccl.h"

#include "base/alloc.h"
#include "base/log.h"
#include "kernels/device.h"
#include "tests/support/test.h"
#include "worker/boot/boot_mpi.h"

#include <stdio.h>

enum { TIMEOUT_MS = 20000, N_REPLAYS = 3 };

static const size_t sizes[] = {4, 4 * 1032, 7 * 1024 + 3, 1 << 20};

static struct {
    boot_world world;
    comm *host;
    comm *gpus;
    kern_ctx *ctx;
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

typedef struct exchange {
    uint8_t *all;
    uint8_t *word;
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
    const kern_replay_key key = {.owner = &x};
    for (int32_t turn = 0; turn <= N_REPLAYS; turn++) {
        bool done = false;
        uint8_t *mine = x.all + (size_t)the.world.rank * x.n_bytes;
        fill(mine, x.n_bytes, the.world.rank, turn);
        fill(x.word, sizeof(int32_t), the.world.rank, turn);
        CHECK_STATUS(kern_send(the.ctx, mine, x.n_bytes), BASE_OK);
        CHECK_STATUS(kern_send(the.ctx, x.word, sizeof(int32_t)), BASE_OK);
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
        CHECK_STATUS(comm_broadcast(the.gpus, x.word, sizeof(int32_t), n - 1, TIMEOUT_MS), BASE_OK);
    }
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
    assert_string_equal(comm_name(the.gpus), "nccl-ag");
    assert_int_equal(comm_size(the.gpus), the.world.n_ranks);
    end_mirror(bytes);
}

static base_status start(void)
{
    base_status st = BASE_OK;
    const boot_launch launch = {NULL, NULL, NULL};
    char who[COMM_NCCL_MAX_WHO];

    BASE_TRY(st, out, boot_mpi_start(&launch, &the.world));
    BASE_TRY(st, out, comm_mpi_create(&base_heap, &the.host));
    (void)snprintf(who, sizeof who, "rank %d", the.world.rank);
    BASE_TRY(st, out,
             kern_ctx_create_cuda(the.world.local_rank % kern_gpu_count(), &base_heap, &the.ctx));
    const comm_nccl_options options = {.host = the.host,
                                       .ctx = the.ctx,
                                       .who = who,
                                       .shared_gpu = kern_gpu_count() < the.world.n_local};
    st = comm_nccl_create(&options, &base_heap, &the.gpus);
out:
    return st;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_gather_collects_every_rank_in_place_too),
        cmocka_unit_test(broadcast_reaches_every_rank_from_every_root),
        cmocka_unit_test(what_was_recorded_exchanges_what_is_there_when_it_is_replayed),
        cmocka_unit_test(its_own_memory_is_the_contexts_too),
        cmocka_unit_test(memory_that_is_not_the_contexts_is_refused_without_a_collective),
    };
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
