#include "tests/support/test.h"
#include "worker/boot/boot_mpi.h"
#include "worker/boot/host.h"
#include "worker/boot/room.h"
#include "worker/boot/sizes.h"

static void srun_without_pmix_is_refused_with_the_fix(void **state)
{
    (void)state;
    static const struct {
        int32_t n_ranks;
        boot_launch launch;
        base_status want;
    } rows[] = {
        {1, {NULL, NULL, NULL}, BASE_OK},       {1, {"1", NULL, NULL}, BASE_OK},
        {1, {"4", NULL, NULL}, BASE_BAD_INPUT}, {4, {"4", NULL, NULL}, BASE_OK},
        {1, {"4", "1", NULL}, BASE_OK}, /* mpirun -n 1 inside an allocation of four */
        {1, {"4", NULL, "0"}, BASE_OK},         {1, {"junk", NULL, NULL}, BASE_OK},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_STATUS(boot_check_launch(rows[i].n_ranks, &rows[i].launch), rows[i].want);
        if (rows[i].want != BASE_OK) {
            CHECK_ERROR_NAMES("SLURM_NTASKS is 4");
            CHECK_ERROR_NAMES("--mpi=pmix");
        }
    }
}

static void one_rank_agrees_with_itself(void **state)
{
    (void)state;
    comm *self = NULL;
    int64_t least = 0;
    const base_hash hash = {{1, 2, 3}};
    CHECK_STATUS(comm_self_create(&base_heap, &self), BASE_OK);
    CHECK_STATUS(boot_compare(self, "model", hash), BASE_OK);
    CHECK_STATUS(boot_least(self, -7, &least), BASE_OK);
    assert_int_equal(least, -7);
    CHECK_STATUS(boot_gather(self, 9, &least), BASE_OK);
    assert_int_equal(least, 9);
    comm_destroy(self);
}

static void the_host_has_memory_and_threads(void **state)
{
    (void)state;
    int64_t n_bytes = 0;
    CHECK_STATUS(host_memory_available(&n_bytes), BASE_OK);
    assert_true(n_bytes > 1 << 20);
    assert_true(host_threads(1) >= host_threads(2));
    assert_int_equal(host_threads(1 << 20), 1);
}

typedef struct fixture {
    model_config config;
    model_split split;
    kv_format *format;
    worker_options options;
} fixture;

static fixture make(void)
{
    fixture f = {.config = {.n_layers = 2,
                            .width = 128,
                            .n_heads = 2,
                            .n_kv_heads = 1,
                            .head_dim = 64,
                            .ffn_width = 256,
                            .n_vocab = 100,
                            .max_context = 10000},
                 .options = {.max_batch = 4, .prefill_chunk = 128}};
    const kv_shape shape = {2, 1, 64};
    const kv_policy policy = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16};
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &f.format), BASE_OK);
    CHECK_STATUS(model_split_make(&f.config, 0, 1, &f.split), BASE_OK);
    return f;
}

static int32_t pages(const fixture *f, int32_t n_ranks, int64_t memory_bytes)
{
    int32_t n_pages = 0;
    CHECK_STATUS(
        sizes_pages(&f->options, &f->config, &f->split, f->format, n_ranks, memory_bytes, &n_pages),
        BASE_OK);
    return n_pages;
}

static void pages_are_what_is_asked_else_what_memory_holds_else_what_is_useful(void **state)
{
    (void)state;
    fixture f = make();
    int32_t n_pages = 0;
    /* 79 blocks of 10000 tokens, four sequences, plus one page for each. */
    assert_int_equal(pages(&f, 1, (int64_t)1 << 40), 4 * 79 + 4);
    assert_int_equal(pages(&f, 4, (int64_t)1 << 40), 79 + 4);
    f.options.max_context = 1000;
    assert_int_equal(pages(&f, 1, (int64_t)1 << 40), 4 * 8 + 4);
    f.options.max_context = 0;

    const int64_t fixed = 16 << 20; /* above tails and scratch of this shape */
    const int32_t some = pages(&f, 1, fixed);
    assert_in_range(some, 1, 319);
    assert_int_equal(pages(&f, 1, fixed + 3 * f.format->page_bytes), some + 3);
    CHECK_STATUS(sizes_pages(&f.options, &f.config, &f.split, f.format, 1, 1000, &n_pages),
                 BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("--kv-memory-fraction");
    f.options.n_pages = 12345;
    assert_int_equal(pages(&f, 1, 1000), 12345);
    kv_format_destroy(f.format);
}

static void check_chunk(const fixture *f, int32_t n_ranks, base_status want)
{
    int32_t n_pages = 0;
    CHECK_STATUS(sizes_pages(&f->options, &f->config, &f->split, f->format, n_ranks, INT64_MAX - 1,
                             &n_pages),
                 want);
}

static void a_chunk_that_ranks_cannot_exchange_is_refused_before_it_runs(void **state)
{
    (void)state;
    fixture f = make();
    f.config.n_heads = 16;
    f.config.head_dim = 128;
    f.options.prefill_chunk = 260096 - 128; /* 4 x 65027 tokens and no more, 8256 bytes each */
    f.options.max_batch = 140;
    check_chunk(&f, 4, BASE_OK);
    f.options.max_batch = 141;
    check_chunk(&f, 4, BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("--prefill-chunk 259968, at most 259840: with --max-batch 141");
    check_chunk(&f, 1, BASE_OK);
    f.options.max_batch = 4;
    check_chunk(&f, 4, BASE_OK);
    f.options.prefill_chunk = 260096;
    check_chunk(&f, 4, BASE_OK);
    f.options.prefill_chunk += 128;
    check_chunk(&f, 4, BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("at most 260096");
    kv_format_destroy(f.format);
}

static void the_longest_context_is_the_models_or_what_the_pools_hold(void **state)
{
    (void)state;
    fixture f = make();
    engine_options e;
    CHECK_STATUS(sizes_engine(&f.options, &f.config, 2, 1000, &e), BASE_OK);
    assert_int_equal(e.max_context, 10000);
    assert_int_equal(e.n_pages, 1000);
    assert_int_equal(e.max_batch, 4);
    CHECK_STATUS(sizes_engine(&f.options, &f.config, 2, 10, &e), BASE_OK);
    assert_int_equal(e.max_context, 2 * 10 * 128);
    f.options.max_context = 2560;
    CHECK_STATUS(sizes_engine(&f.options, &f.config, 2, 10, &e), BASE_OK);
    assert_int_equal(e.max_context, 2560);
    f.options.max_context = 2561;
    CHECK_STATUS(sizes_engine(&f.options, &f.config, 2, 10, &e), BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("hold 2560 tokens");
    f.options.max_context = 10001;
    CHECK_STATUS(sizes_engine(&f.options, &f.config, 2, 1000, &e), BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("the model's limit is 10000");
    kv_format_destroy(f.format);
}

static void the_least_cache_holds_one_sequence(void **state)
{
    (void)state;
    fixture f = make();
    const int64_t page = f.format->page_bytes;
    const int64_t of_all = sizes_least(&f.options, &f.config, &f.split, f.format, 1);
    /* 64 blocks of 8192 tokens, over four ranks 16; scratch knows of ranks too, a little. */
    const int64_t of_four = sizes_least(&f.options, &f.config, &f.split, f.format, 4);
    assert_true(of_all > 64 * page);
    assert_in_range(of_all - of_four, 44 * page, 48 * page);
    f.options.max_context = 128;
    assert_in_range(of_all - sizes_least(&f.options, &f.config, &f.split, f.format, 1), 63 * page,
                    64 * page);
    f.options.n_pages = 64;
    assert_in_range(of_all - sizes_least(&f.options, &f.config, &f.split, f.format, 1), 0, page);
    f.options = (worker_options){.max_batch = 4, .prefill_chunk = 128};
    f.config.max_context = 1000; /* the model's is less than the usual one */
    assert_in_range(of_all - sizes_least(&f.options, &f.config, &f.split, f.format, 1), 56 * page,
                    57 * page);
    kv_format_destroy(f.format);
}

static void a_room_is_shared_beside_what_is_still_to_come(void **state)
{
    (void)state;
    const room gpu = {.free_bytes = 1000, .n_sharing = 2, .fraction = 0.5};
    const boot_world alone = {.n_ranks = 1, .n_local = 1};
    const seat_plan cpu = {.device = KERN_DEVICE_CPU};
    room host;
    assert_int_equal(room_beside(&gpu, 0), 250);
    assert_int_equal(room_beside(&gpu, 100), 200);
    assert_int_equal(room_beside(&gpu, 500), 0);
    assert_int_equal(room_beside(&gpu, 600), -50);
    CHECK_STATUS(room_measure(&cpu, &alone, 0.0, &host), BASE_OK);
    assert_true(host.fraction == ROOM_HOST_FRACTION && host.free_bytes > 1 << 20);
    CHECK_STATUS(room_measure(&cpu, &alone, 0.7, &host), BASE_OK);
    assert_true(host.fraction == 0.7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(srun_without_pmix_is_refused_with_the_fix),
        cmocka_unit_test(one_rank_agrees_with_itself),
        cmocka_unit_test(the_host_has_memory_and_threads),
        cmocka_unit_test(pages_are_what_is_asked_else_what_memory_holds_else_what_is_useful),
        cmocka_unit_test(a_chunk_that_ranks_cannot_exchange_is_refused_before_it_runs),
        cmocka_unit_test(the_longest_context_is_the_models_or_what_the_pools_hold),
        cmocka_unit_test(the_least_cache_holds_one_sequence),
        cmocka_unit_test(a_room_is_shared_beside_what_is_still_to_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
