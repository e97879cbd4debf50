/* A policy without pages under a run: which keys a query sees, and what the cache says it takes. */
#include "worker/eval/cache.h"

#include "base/half.h"
#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "tests/unit/worker/model/tiny_model.h"
#include "worker/eval/run.h"

#include <math.h>

enum { V = TINY_VOCAB, BLOCK = KERN_BLOCK_TOKENS, N = BLOCK + 20 };

static tiny_folder folder;
static model *m;
static kern_ctx *ctx;
static comm *ranks;
static kv_calibration *energies;
static int32_t ids[N];

static int set_up(void **state)
{
    (void)state;
    const tiny_options o = {.dtype = BASE_F32, .seed = 8};
    folder = tiny_create(&o);
    CHECK_STATUS(model_open(folder.path, &base_heap, &m), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    CHECK_STATUS(comm_self_create(&base_heap, &ranks), BASE_OK);
    const kv_shape shape = {m->config.n_layers, m->config.n_kv_heads, m->config.head_dim};
    CHECK_STATUS(kv_calibration_create(&shape, m->hash, 1, &base_heap, &energies), BASE_OK);
    for (int64_t i = 0; i < kv_calibration_count(&shape); i++) {
        energies->energies[i] = (float)exp(base_random_normal(2, 0, (uint64_t)i));
    }
    for (uint64_t i = 0; i < N; i++) {
        ids[i] = (int32_t)(base_random_u64(4, 0, i) % V);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kv_calibration_destroy(energies);
    comm_destroy(ranks);
    kern_ctx_destroy(ctx);
    model_close(m);
    tiny_remove(&folder);
    return 0;
}

static eval_run *run_of(const char *policy_text)
{
    kv_policy policy;
    eval_run *run = NULL;
    const eval_run_options options = {.max_step_tokens = N,
                                      .max_samples = N,
                                      .max_context = N,
                                      .n_slots = 1,
                                      .calibration = energies};
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    CHECK_STATUS(eval_run_create(m, &policy, ctx, ranks, &options, &base_heap, &run), BASE_OK);
    return run;
}

/* Largest difference of the logits after ids[0..n) between two policies. */
static float gap(const char *a, const char *b, int32_t n)
{
    float logits[2][V];
    const char *const policies[2] = {a, b};
    float most = 0.0f;
    for (int32_t i = 0; i < 2; i++) {
        eval_run *run = run_of(policies[i]);
        CHECK_STATUS(eval_run_feed(run, ids, n, N, logits[i]), BASE_OK);
        eval_run_destroy(run);
    }
    for (int32_t i = 0; i < V; i++) {
        most = fmaxf(most, fabsf(logits[0][i] - logits[1][i]));
    }
    return most;
}

static void a_query_sees_replaced_keys_from_the_next_block_on(void **state)
{
    (void)state;
    assert_true(gap("block-gtq:k=2,v=16,paper=1", "tq:k=16,v=16", BLOCK) == 0.0f);
    const float two = gap("block-gtq:k=2,v=16,paper=1", "tq:k=16,v=16", N);
    const float eight = gap("block-gtq:k=8,v=16,paper=1", "tq:k=16,v=16", N);
    assert_true(eight > 0.0f);
    assert_true(two > 4.0f * eight);
}

static void a_page_holds_what_the_groups_give_back(void **state)
{
    (void)state;
    const kv_shape shape = energies->shape;
    kv_policy policy;
    eval_cache *cache = NULL;
    CHECK_STATUS(kv_policy_parse("block-gtq:paper", &policy), BASE_OK);
    CHECK_STATUS(eval_cache_create(&policy, &shape, energies, &base_heap, &cache), BASE_OK);
    const size_t n = (size_t)cache->format->page_bytes;
    uint8_t *page = base_heap.get(base_heap.ctx, n);
    assert_non_null(page);
    const int32_t last_layer = shape.n_layers - 1;
    const int32_t last_head = shape.n_kv_heads - 1;
    const kern_head_format *head = &kv_format_layer(cache->format, last_layer)[last_head];
    uint16_t *row = (uint16_t *)(void *)(page + head->offset + head->k.segments[0].codes_offset) +
                    (BLOCK - 1) * shape.head_dim;
    float key[KERN_MAX_HEAD_DIM];
    for (int32_t i = 0; i < shape.head_dim; i++) {
        row[i] = base_bf16_from_f32((float)base_random_normal(6, 0, (uint64_t)i));
        key[i] = base_f32_from_bf16(row[i]);
    }
    uint8_t *v = page + head->offset + head->v.segments[0].codes_offset;
    *v = 0x5a;
    eval_cache_fill(cache, page);
    eval_free_groups_apply(cache->groups, last_layer, last_head, key);
    for (int32_t i = 0; i < shape.head_dim; i++) {
        assert_int_equal(row[i], base_bf16_from_f32(key[i]));
    }
    assert_int_equal(*v, 0x5a);
    base_heap.put(base_heap.ctx, page);
    eval_cache_destroy(cache);
}

static void bytes_are_those_of_codes_and_norms(void **state)
{
    (void)state;
    static const char *const policies[] = {"tq:k=3,v=2", "block-gtq:k=3,v=2",
                                           "block-gtq:k=3,v=2,paper"};
    const kv_shape shape = energies->shape;
    double k_bits[3];
    for (int32_t i = 0; i < 3; i++) {
        kv_policy policy;
        eval_cache *cache = NULL;
        double sum = 0.0;
        CHECK_STATUS(kv_policy_parse(policies[i], &policy), BASE_OK);
        CHECK_STATUS(eval_cache_create(&policy, &shape, energies, &base_heap, &cache), BASE_OK);
        k_bits[i] = eval_cache_k_bits(cache);
        for (int32_t l = 0; l < shape.n_layers; l++) {
            sum += eval_cache_layer_k_bits(cache, l) / shape.n_layers;
        }
        assert_true(fabs(k_bits[i] - sum) < 1e-9);
        if (i < 2) { /* pages: their own account */
            assert_true(fabs(k_bits[i] - cache->format->k_bits_per_element) < 1e-9);
            assert_true(fabs(eval_cache_bytes_per_token(cache) -
                             kv_format_bytes_per_token(cache->format)) < 1e-9);
        }
        eval_cache_destroy(cache);
    }
    assert_true(fabs(k_bits[0] - (3.0 + 16.0 / shape.head_dim)) < 1e-9);
    assert_true(k_bits[1] > 2.5 && k_bits[1] <= k_bits[0]);
    assert_true(k_bits[2] > 3.0 && k_bits[2] < 5.5);
}

static void what_a_reference_cannot_do_is_refused(void **state)
{
    (void)state;
    kv_policy policy;
    kv_format *format = NULL;
    eval_cache *cache = NULL;
    const kv_shape shape = energies->shape;
    eval_run *run = run_of("block-gtq:paper");
    kv_step_seq seq = {.n_tokens = BLOCK + 1};
    CHECK_STATUS(eval_run_step(run, &seq, 1, ids, NULL, 0, NULL), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("129 tokens at position 0");
    eval_run_destroy(run);
    CHECK_STATUS(kv_policy_parse("block-gtq:paper", &policy), BASE_OK);
    CHECK_STATUS(kv_format_create_calibrated(&policy, &shape, energies, &base_heap, &format),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("block-gtq:paper");
    CHECK_STATUS(eval_cache_create(&policy, &shape, NULL, &base_heap, &cache), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("calibration");
    assert_null(cache);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    kv_policy policy;
    CHECK_STATUS(kv_policy_parse("block-gtq:paper", &policy), BASE_OK);
    for (int k = 0;; k++) {
        failing_alloc a = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &a};
        eval_cache *cache = NULL;
        const base_status st = eval_cache_create(&policy, &energies->shape, energies, &mem, &cache);
        if (st == BASE_OK) {
            assert_true(k > 5);
            eval_cache_destroy(cache);
            assert_int_equal(a.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(cache);
        assert_int_equal(a.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_query_sees_replaced_keys_from_the_next_block_on),
        cmocka_unit_test(a_page_holds_what_the_groups_give_back),
        cmocka_unit_test(bytes_are_those_of_codes_and_norms),
        cmocka_unit_test(what_a_reference_cannot_do_is_refused),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
