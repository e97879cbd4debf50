#include "kernels/op_rope.h"

#include "tests/support/parity.h"

/* op_turns.h's, which has a test of its own. */
static void turns_of(kern_ctx *ctx, const int64_t *positions, const float *freq, int32_t n_tokens,
                     int32_t head_dim, float *turns_out)
{
    const kern_turns_args args = {.positions = positions,
                                  .inv_freq = freq,
                                  .turns = turns_out,
                                  .n_tokens = n_tokens,
                                  .head_dim = head_dim};
    CHECK_STATUS(kern_turns(ctx, &args), BASE_OK);
}

static void position_zero_changes_nothing(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const int64_t position = 0;
    const float freq[2] = {1.0f, 0.1f};
    float x[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    float turns[4];
    turns_of(ctx, &position, freq, 1, 4, turns);
    const kern_rope_args args = {
        .x = x, .turns = turns, .n_tokens = 1, .n_heads = 1, .head_dim = 4, .x_stride = 4};
    CHECK_STATUS(kern_rope(ctx, &args), BASE_OK);
    for (int32_t i = 0; i < 4; i++) {
        assert_true(x[i] == (float)(i + 1));
    }
    kern_ctx_destroy(ctx);
}

/* Angle pi / 2 in f32 takes (x, y) to (-y, x): dims i and i + D / 2 are a pair. */
static void a_quarter_turn_swaps_the_pair(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const int64_t position = 1;
    const float freq[2] = {1.57079633f, 0.0f};
    float x[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    float turns[4];
    turns_of(ctx, &position, freq, 1, 4, turns);
    const kern_rope_args args = {
        .x = x, .turns = turns, .n_tokens = 1, .n_heads = 1, .head_dim = 4, .x_stride = 4};
    CHECK_STATUS(kern_rope(ctx, &args), BASE_OK);
    parity_near((double)x[0], -3.0, 1e-6, "x", 0);
    parity_near((double)x[2], 1.0, 1e-6, "x", 2);
    assert_true(x[1] == 2.0f && x[3] == 4.0f);
    kern_ctx_destroy(ctx);
}

static void random_rows_agree_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const int32_t dims[] = {2, 64, 128, 256};
    const int64_t positions[] = {0, 1, 800001, INT32_MAX, 12345};
    for (size_t i = 0; i < 4; i++) {
        const int32_t dim = dims[i];
        const int32_t n_heads = 3;
        const int32_t stride = n_heads * dim + 5; /* the gap is not touched */
        const int64_t n = 5 * (int64_t)stride;
        float freq[128];
        float *x = parity_normals(1, n, 1.0);
        float *y = parity_guarded(n);
        memcpy(y, x, (size_t)n * sizeof *y);
        for (int32_t f = 0; f < dim / 2; f++) {
            freq[f] = (float)pow(1e6, -2.0 * f / dim);
        }
        float turns[5 * 256];
        turns_of(ctx, positions, freq, 5, dim, turns);
        const kern_rope_args args = {.x = y,
                                     .turns = turns,
                                     .n_tokens = 5,
                                     .n_heads = n_heads,
                                     .head_dim = dim,
                                     .x_stride = stride};
        CHECK_STATUS(kern_rope(ctx, &args), BASE_OK);
        for (int64_t j = 0; j < n; j++) {
            const int64_t t = j / stride;
            const int64_t d = j % stride % dim;
            if (j % stride >= n_heads * dim) {
                assert_true(y[j] == x[j]);
                continue;
            }
            const int64_t f = d % (dim / 2);
            const double a = (double)positions[t] * (double)freq[f];
            const double x0 = (double)x[j - d + f];
            const double x1 = (double)x[j - d + f + dim / 2];
            const double want = d < dim / 2 ? x0 * cos(a) - x1 * sin(a) : x1 * cos(a) + x0 * sin(a);
            parity_near((double)y[j], want, 3e-7 * (fabs(x0) + fabs(x1)), "x", j);
        }
        parity_guarded_check(y, n);
        free(x);
        parity_guarded_free(y);
    }
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const float turns[258] = {0};
    float *x = parity_guarded(8);
    kern_rope_args good = {
        .x = x, .turns = turns, .n_tokens = 1, .n_heads = 2, .head_dim = 4, .x_stride = 8};
    PARITY_REFUSED(kern_rope, ctx, good, head_dim, 0);
    PARITY_REFUSED(kern_rope, ctx, good, head_dim, 3);
    PARITY_REFUSED(kern_rope, ctx, good, head_dim, 258);
    PARITY_REFUSED(kern_rope, ctx, good, n_heads, 0);
    PARITY_REFUSED(kern_rope, ctx, good, n_tokens, -1);
    PARITY_REFUSED(kern_rope, ctx, good, x_stride, 7);
    good.n_tokens = 0;
    CHECK_STATUS(kern_rope(ctx, &good), BASE_OK);
    parity_guarded_untouched(x, 8);
    parity_guarded_free(x);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(position_zero_changes_nothing),
        cmocka_unit_test(a_quarter_turn_swaps_the_pair),
        cmocka_unit_test(random_rows_agree_with_fp64),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
