#include "kernels/op_bias.h"

#include "tests/support/parity.h"

static void every_row_gets_the_bias_and_nothing_else_is_touched(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};
    static const int32_t shapes[][2] = {{1, 1}, {3, 7}, {2, 8}, {700, 257}, {0, 4}};
    for (size_t i = 0; i < 15; i++) {
        const int32_t rows = shapes[i / 3][0];
        const int32_t cols = shapes[i / 3][1];
        const base_dtype dtype = dtypes[i % 3];
        const int64_t n = (int64_t)rows * cols;
        float *x = parity_normals(1, n + 1, 3.0);
        float *b32 = parity_normals(2, cols, 1.0);
        void *b = parity_elems(b32, cols, dtype);
        float *y = parity_guarded(n);
        memcpy(y, x, (size_t)n * sizeof *y);
        const kern_bias_args args = {.x = y, .bias = b, .rows = rows, .cols = cols, .dtype = dtype};
        CHECK_STATUS(kern_bias(ctx, &args), BASE_OK);
        for (int64_t j = 0; j < n; j++) {
            const float want = x[j] + (float)parity_elem(b, j % cols, dtype);
            assert_true(y[j] == want);
        }
        parity_guarded_check(y, n);
        free(x);
        free(b32);
        free(b);
        parity_guarded_free(y);
    }
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const float bias[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    float *y = parity_guarded(4);
    kern_bias_args good = {.x = y, .bias = bias, .rows = 0, .cols = 4, .dtype = BASE_F32};
    CHECK_STATUS(kern_bias(ctx, &good), BASE_OK);
    PARITY_REFUSED(kern_bias, ctx, good, rows, -1);
    good.rows = 1;
    PARITY_REFUSED(kern_bias, ctx, good, cols, 0);
    parity_guarded_untouched(y, 4);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_gets_the_bias_and_nothing_else_is_touched),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
