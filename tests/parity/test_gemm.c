#include "kernels/op_gemm.h"

#include "tests/support/parity.h"

static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};

/* Ones and small integers: every sum is exact in f32, whatever the order. */
static void integers_multiply_exactly(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const int32_t rows[] = {1, 2, 3, 8, 9, 300};
    for (size_t t = 0; t < 3; t++) {
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
            const int32_t m = rows[r];
            const int32_t n = 259;
            const int32_t k = 70;
            float *x = parity_memory((int64_t)m * k, sizeof *x);
            float *w32 = parity_memory((int64_t)n * k, sizeof *w32);
            float *y = parity_guarded((int64_t)m * n);
            for (int32_t i = 0; i < m * k; i++) {
                x[i] = (float)(i % 5 - 2);
            }
            for (int32_t i = 0; i < n * k; i++) {
                w32[i] = (float)(i % 7 - 3);
            }
            void *w = parity_elems(w32, (int64_t)n * k, dtypes[t]);
            const kern_gemm_args args = {.x = x,
                                         .w = w,
                                         .y = y,
                                         .m = m,
                                         .n = n,
                                         .k = k,
                                         .x_stride = k,
                                         .y_stride = n,
                                         .dtype = dtypes[t]};
            CHECK_STATUS(kern_gemm(ctx, &args), BASE_OK);
            for (int32_t i = 0; i < m; i++) {
                for (int32_t j = 0; j < n; j++) {
                    int64_t want = 0;
                    for (int32_t l = 0; l < k; l++) {
                        want += ((i * k + l) % 5 - 2) * (int64_t)((j * k + l) % 7 - 3);
                    }
                    assert_true(y[(int64_t)i * n + j] == (float)want);
                }
            }
            parity_guarded_check(y, (int64_t)m * n);
            free(x);
            free(w32);
            free(w);
            parity_guarded_free(y);
        }
    }
    kern_ctx_destroy(ctx);
}

static void check_shape(kern_ctx *ctx, int32_t m, int32_t n, int32_t k, base_dtype dtype, bool bias,
                        bool accumulate)
{
    const int32_t x_stride = k + 3;
    const int32_t y_stride = n + 5;
    const int64_t y_elems = (int64_t)(m - 1) * y_stride + n;
    float *x = parity_normals(1, (int64_t)m * x_stride, 1.0);
    float *w32 = parity_normals(2, (int64_t)n * k, 1.0);
    float *b32 = parity_normals(3, n, 1.0);
    void *w = parity_elems(w32, (int64_t)n * k, dtype);
    void *b = parity_elems(b32, n, dtype);
    float *y = parity_guarded(y_elems);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            y[i * y_stride + j] = accumulate ? 0.5f : NAN; /* NaN must be overwritten, not added */
        }
    }
    const kern_gemm_args args = {.x = x,
                                 .w = w,
                                 .bias = bias ? b : NULL,
                                 .y = y,
                                 .m = m,
                                 .n = n,
                                 .k = k,
                                 .x_stride = x_stride,
                                 .y_stride = y_stride,
                                 .dtype = dtype,
                                 .accumulate = accumulate};
    CHECK_STATUS(kern_gemm(ctx, &args), BASE_OK);
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < y_stride && i * y_stride + j < y_elems; j++) {
            if (j >= n) { /* between rows */
                assert_true(y[i * y_stride + j] == -12345.0f);
                continue;
            }
            double want = (bias ? parity_elem(b, j, dtype) : 0.0) + (accumulate ? 0.5 : 0.0);
            double xx = 0.0;
            double ww = 0.0;
            for (int64_t l = 0; l < k; l++) {
                const double xv = (double)x[i * x_stride + l];
                const double wv = parity_elem(w, j * k + l, dtype);
                want += xv * wv;
                xx += xv * xv;
                ww += wv * wv;
            }
            const double limit = 2e-6 * sqrt((double)k) * sqrt(xx) * sqrt(ww) + 1e-6;
            parity_near((double)y[i * y_stride + j], want, limit, "y", i * n + j);
        }
    }
    parity_guarded_check(y, y_elems);
    free(x);
    free(w32);
    free(b32);
    free(w);
    free(b);
    parity_guarded_free(y);
}

static void random_products_agree_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    static const int32_t shapes[][3] = {{1, 1, 1},    {1, 3, 9},     {4, 130, 64},  {5, 65, 33},
                                        {8, 67, 256}, {9, 257, 100}, {17, 1, 2050}, {257, 31, 40}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t t = 0; t < 3; t++) {
            const int32_t *d = shapes[s];
            check_shape(ctx, d[0], d[1], d[2], dtypes[t], false, false);
            check_shape(ctx, d[0], d[1], d[2], dtypes[t], true, true);
        }
    }
    kern_ctx_destroy(ctx);
}

/* All 65536 of them, eight to a row of w; a one-hot row of x picks each in turn.  The other seven
 * of a row are 0, because 0 * infinity would be NaN. */
static void halves_of_every_kind_are_read_exactly(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    static const int32_t rows[] = {1, 9}; /* dot products, tiles */
    static uint16_t w[65536];
    float *y = parity_memory((int64_t)9 * 8192, sizeof *y);

    for (int32_t i = 0; i < 2 * 2 * 8; i++) {
        const base_dtype dtype = i % 2 == 0 ? BASE_F16 : BASE_BF16;
        const int32_t m = rows[i / 2 % 2];
        const int32_t lane = i / 4;
        float x[9 * 8] = {0};
        for (int32_t r = 0; r < m; r++) {
            x[r * 8 + lane] = 1.0f;
        }
        for (int32_t j = 0; j < 65536; j++) {
            w[j] = (uint16_t)(j % 8 == lane ? j : 0);
        }
        const kern_gemm_args args = {.x = x,
                                     .w = w,
                                     .y = y,
                                     .m = m,
                                     .n = 8192,
                                     .k = 8,
                                     .x_stride = 8,
                                     .y_stride = 8192,
                                     .dtype = dtype};
        CHECK_STATUS(kern_gemm(ctx, &args), BASE_OK);
        for (int32_t j = 0; j < m * 8192; j++) {
            parity_near((double)y[j], parity_elem(w, j % 8192 * 8 + lane, dtype), 0.0, "half", j);
        }
    }
    free(y);
    kern_ctx_destroy(ctx);
}

static void no_rows_write_nothing_and_broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    float x[16] = {0};
    float w[16] = {0};
    float *y = parity_guarded(16);
    kern_gemm_args good = {.x = x,
                           .w = w,
                           .y = y,
                           .m = 0,
                           .n = 4,
                           .k = 4,
                           .x_stride = 4,
                           .y_stride = 4,
                           .dtype = BASE_F32};
    CHECK_STATUS(kern_gemm(ctx, &good), BASE_OK);
    good.m = 4;
    PARITY_REFUSED(kern_gemm, ctx, good, m, -1);
    PARITY_REFUSED(kern_gemm, ctx, good, n, 0);
    PARITY_REFUSED(kern_gemm, ctx, good, k, 0);
    PARITY_REFUSED(kern_gemm, ctx, good, x_stride, 3);
    CHECK_ERROR_NAMES("3");
    PARITY_REFUSED(kern_gemm, ctx, good, y_stride, 3);
    parity_guarded_untouched(y, 16);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_multiply_exactly),
        cmocka_unit_test(random_products_agree_with_fp64),
        cmocka_unit_test(halves_of_every_kind_are_read_exactly),
        cmocka_unit_test(no_rows_write_nothing_and_broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
