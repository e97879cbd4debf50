#include "kernels/op_rmsnorm.h"

#include "tests/support/parity.h"

/* A row of equal magnitudes v has mean square v * v: with eps 0 the output is sign * weight. */
static void rows_of_one_magnitude_become_the_weight(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    float x[2 * 19];
    float w[19];
    float *y = parity_guarded(2 * 19);
    for (int32_t i = 0; i < 2 * 19; i++) {
        x[i] = i % 3 == 0 ? -4.0f : 4.0f;
        w[i % 19] = 0.25f * (float)(i % 19 + 1);
    }
    const kern_rmsnorm_args args = {
        .x = x, .weight = w, .y = y, .rows = 2, .cols = 19, .dtype = BASE_F32};
    CHECK_STATUS(kern_rmsnorm(ctx, &args), BASE_OK);
    for (int32_t i = 0; i < 2 * 19; i++) {
        assert_true(y[i] == (x[i] < 0.0f ? -w[i % 19] : w[i % 19]));
    }
    parity_guarded_check(y, 2 * 19);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

static void random_rows_agree_with_fp64_in_place_too(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};
    static const int32_t shapes[][2] = {{1, 1}, {3, 7}, {2, 8}, {700, 257}, {3, 8192}};
    for (size_t i = 0; i < 15; i++) {
        const int32_t rows = shapes[i / 3][0];
        const int32_t cols = shapes[i / 3][1];
        const base_dtype dtype = dtypes[i % 3];
        const int64_t n = (int64_t)rows * cols;
        float *x = parity_normals(1, n, 3.0);
        float *w32 = parity_normals(2, cols, 1.0);
        void *w = parity_elems(w32, cols, dtype);
        float *y = parity_guarded(n);
        memcpy(y, x, (size_t)n * sizeof *y);
        const kern_rmsnorm_args args = {
            .x = y, .weight = w, .y = y, .rows = rows, .cols = cols, .eps = 1e-5f, .dtype = dtype};
        CHECK_STATUS(kern_rmsnorm(ctx, &args), BASE_OK);
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0.0;
            double top = 0.0;
            for (int64_t c = 0; c < cols; c++) {
                sum += (double)x[r * cols + c] * (double)x[r * cols + c];
            }
            const double scale = 1.0 / sqrt(sum / cols + (double)args.eps);
            for (int64_t c = 0; c < cols; c++) {
                top = fmax(top, fabs((double)x[r * cols + c] * scale * parity_elem(w, c, dtype)));
            }
            for (int64_t c = 0; c < cols; c++) {
                const double want = (double)x[r * cols + c] * scale * parity_elem(w, c, dtype);
                parity_near((double)y[r * cols + c], want, 2e-6 * top, "y", r * cols + c);
            }
        }
        parity_guarded_check(y, n);
        free(x);
        free(w32);
        free(w);
        parity_guarded_free(y);
    }
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const float x[4] = {0};
    float *y = parity_guarded(4);
    kern_rmsnorm_args good = {.x = x, .weight = x, .y = y, .rows = 0, .cols = 4, .dtype = BASE_F32};
    CHECK_STATUS(kern_rmsnorm(ctx, &good), BASE_OK);
    PARITY_REFUSED(kern_rmsnorm, ctx, good, rows, -1);
    good.rows = 1;
    PARITY_REFUSED(kern_rmsnorm, ctx, good, cols, 0);
    parity_guarded_untouched(y, 4);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_one_magnitude_become_the_weight),
        cmocka_unit_test(random_rows_agree_with_fp64_in_place_too),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
