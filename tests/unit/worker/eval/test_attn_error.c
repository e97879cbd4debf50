/* Attention errors against sums written out plainly, in double. */
#include "base/half.h"
#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "worker/eval/attn_error.h"

#include <math.h>

/* cmocka compares floats only */
#define CHECK_NEAR(got, want, tolerance) assert_true(fabs((got) - (want)) <= (tolerance))

enum { BLOCK = KERN_BLOCK_TOKENS, T = 2 * BLOCK + 20, H = 4, HKV = 2, D = 64, LAYERS = 2 };

typedef struct world {
    model_config config;
    eval_cache *cache;
    kern_ctx *ctx;
    float q[T][H][D], k[T][HKV][D], v[T][HKV][D];
    float inv_freq[D / 2];
    int64_t positions[T];
} world;

static world w;

static void open_world(const char *policy_text)
{
    kv_policy policy;
    const kv_shape shape = {LAYERS, HKV, D};
    w.config = (model_config){.n_layers = LAYERS, .n_heads = H, .n_kv_heads = HKV, .head_dim = D};
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    CHECK_STATUS(eval_cache_create(&policy, &shape, NULL, &base_heap, &w.cache), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &w.ctx), BASE_OK);
    float *const parts[] = {&w.q[0][0][0], &w.k[0][0][0], &w.v[0][0][0]};
    const size_t sizes[] = {T * H * D, T * HKV * D, T * HKV * D};
    for (size_t p = 0; p < 3; p++) {
        for (size_t i = 0; i < sizes[p]; i++) {
            parts[p][i] = (float)base_random_normal(11, p, i);
        }
    }
    for (int32_t t = 0; t < T; t++) {
        w.positions[t] = t;
    }
    for (int32_t i = 0; i < D / 2; i++) {
        w.inv_freq[i] = (float)pow(10000.0, -2.0 * i / D);
    }
}

static void close_world(void)
{
    kern_ctx_destroy(w.ctx);
    eval_cache_destroy(w.cache);
}

static void see(eval_attn_error *e, int32_t layer, int32_t begin, int32_t end)
{
    const forward_observation seen = {.layer = layer,
                                      .n_tokens = end - begin,
                                      .positions = w.positions + begin,
                                      .q = &w.q[begin][0][0],
                                      .k = &w.k[begin][0][0],
                                      .v = &w.v[begin][0][0],
                                      .inv_freq = w.inv_freq};
    CHECK_STATUS(eval_attn_error_see(e, &seen), BASE_OK);
}

/* Under bf16 the value read back is the rounded key itself. */
static double rounding(int32_t t, int32_t h, int32_t i)
{
    const float k = w.k[t][h][i];
    return (double)base_f32_from_bf16(base_bf16_from_f32(k)) - (double)k;
}

static double want_pairs(void)
{
    double sum = 0.0;
    int64_t n = 0;
    for (int32_t m = 0; m < T; m++) {
        for (int32_t j = 0; j < m / BLOCK * BLOCK; j++) {
            for (int32_t h = 0; h < H; h++, n++) {
                double x = 0.0;
                for (int32_t i = 0; i < D; i++) {
                    x += (double)w.q[m][h][i] * rounding(j, h / (H / HKV), i);
                }
                sum += fabs(x);
            }
        }
    }
    return sum / (double)n;
}

static double want_offsets(void)
{
    double sum = 0.0;
    for (int32_t t = 0; t < 2 * BLOCK; t++) {
        for (int32_t h = 0; h < H; h++) {
            for (int32_t j = 0; j < 50; j++) {
                const double offset = -1024.0 + 2048.0 * j / 49.0;
                double x = 0.0;
                for (int32_t i = 0; i < D / 2; i++) { /* q . R e */
                    const double a = offset * (double)w.inv_freq[i];
                    const double e1 = rounding(t, h / (H / HKV), i);
                    const double e2 = rounding(t, h / (H / HKV), i + D / 2);
                    x += (double)w.q[t][h][i] * (e1 * cos(a) - e2 * sin(a));
                    x += (double)w.q[t][h][i + D / 2] * (e2 * cos(a) + e1 * sin(a));
                }
                sum += fabs(x);
            }
        }
    }
    return sum / (2.0 * BLOCK * H * 50);
}

static void bf16_errors_are_those_of_rounding(void **state)
{
    (void)state;
    eval_attn_error *e = NULL;
    open_world("bf16");
    CHECK_STATUS(eval_attn_error_create(&w.config, w.cache, w.ctx, T, &base_heap, &e), BASE_OK);
    see(e, 1, 0, BLOCK);
    see(e, 1, BLOCK, T);
    const eval_attn_mae got = eval_attn_error_layer(e, 1);
    const double pairs = want_pairs();
    const double offsets = want_offsets();
    assert_true(pairs > 0.001);
    CHECK_NEAR(got.pairs, pairs, 1e-4 * pairs);
    CHECK_NEAR(got.offsets, offsets, 1e-4 * offsets);
    const eval_attn_mae none = eval_attn_error_layer(e, 0);
    assert_true(isnan(none.pairs) && isnan(none.offsets));
    eval_attn_error_destroy(e);
    close_world();
}

/* The rotation is undone: an error of tq is as large as its distortion says, and falls with each bit. */
static void tq_errors_follow_the_distortion(void **state)
{
    (void)state;
    static const char *const policies[] = {"tq:k=2,v=2", "tq:k=3,v=3", "tq:k=4,v=4"};
    static const double distortion[] = {0.117, 0.0328, 0.0088}; /* of 64 dims, relative */
    for (size_t i = 0; i < 3; i++) {
        eval_attn_error *e = NULL;
        open_world(policies[i]);
        CHECK_STATUS(eval_attn_error_create(&w.config, w.cache, w.ctx, T, &base_heap, &e), BASE_OK);
        see(e, 0, 0, T);
        const eval_attn_mae got = eval_attn_error_layer(e, 0);
        /* |k|^2 = D, and q is N(0, 1): q . e is about N(0, D * distortion) */
        const double want = sqrt(D * distortion[i] * 2.0 / acos(-1.0));
        CHECK_NEAR(got.pairs, want, 0.1 * want);
        CHECK_NEAR(got.offsets, want, 0.1 * want);
        eval_attn_error_destroy(e);
        close_world();
    }
}

static void a_step_inside_a_block_is_refused(void **state)
{
    (void)state;
    eval_attn_error *e = NULL;
    open_world("bf16");
    CHECK_STATUS(eval_attn_error_create(&w.config, w.cache, w.ctx, BLOCK, &base_heap, &e), BASE_OK);
    forward_observation seen = {.n_tokens = 1, .positions = w.positions + 5};
    CHECK_STATUS(eval_attn_error_see(e, &seen), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("position 5");
    seen = (forward_observation){.n_tokens = BLOCK + 1, .positions = w.positions};
    CHECK_STATUS(eval_attn_error_see(e, &seen), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("past 128");
    eval_attn_error_destroy(e);
    close_world();
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    open_world("tq:k=4,v=4");
    for (int k = 0;; k++) {
        failing_alloc a = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &a};
        eval_attn_error *e = NULL;
        const base_status st = eval_attn_error_create(&w.config, w.cache, w.ctx, T, &mem, &e);
        if (st == BASE_OK) {
            assert_true(k > 5);
            eval_attn_error_destroy(e);
            assert_int_equal(a.n_live, 0);
            break;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(e);
        assert_int_equal(a.n_live, 0);
    }
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_errors_are_those_of_rounding),
        cmocka_unit_test(tq_errors_follow_the_distortion),
        cmocka_unit_test(a_step_inside_a_block_is_refused),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
