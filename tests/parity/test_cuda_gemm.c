/* The three ways of the CUDA product against fp64.  Where x is rounded to 16 bits first, the reference rounds it
 * too, so that the limit is op_gemm.h's for all. */
#include "kernels/cuda/cuda_gemm.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/parity_cuda.h"

static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};

typedef struct gemm_case {
    int32_t m, n, k, x_pad, y_pad;
    base_dtype dtype;
    bool bias;
    bool accumulate;
} gemm_case;

static void check_case(cuda_gemm *gemm, const gemm_case *c)
{
    const int32_t x_stride = c->k + c->x_pad;
    const int32_t y_stride = c->n + c->y_pad;
    const int64_t x_elems = (int64_t)c->m * x_stride;
    const int64_t y_elems = (int64_t)c->m * y_stride;
    const int64_t w_elems = (int64_t)c->n * c->k;
    const bool rounds = c->m > CUDA_GEMV_ROWS && c->k % 8 == 0 && c->dtype != BASE_F32;
    float *x = parity_normals(1, x_elems, 1.0);
    float *w32 = parity_normals(2, w_elems, 1.0);
    float *b32 = parity_normals(3, c->n, 1.0);
    float *y = parity_memory(y_elems, sizeof *y);
    void *w = parity_elems(w32, w_elems, c->dtype);
    void *b = parity_elems(b32, c->n, c->dtype);
    void *x16 = parity_elems(x, x_elems, c->dtype);
    for (int64_t i = 0; i < y_elems; i++) {
        const bool between = i % y_stride >= c->n;
        y[i] = between ? -12345.0f : c->accumulate ? 0.5f : NAN; /* NaN must be overwritten */
    }
    parity_device device = {.n_held = 0};
    void *dy = on_device(y, (size_t)y_elems * sizeof *y);
    const size_t bytes = base_dtype_bytes(c->dtype);
    const kern_gemm_args a = {.x = device_copy(&device, x, (size_t)x_elems * sizeof *x),
                              .w = device_copy(&device, w, (size_t)w_elems * bytes),
                              .bias =
                                  c->bias ? device_copy(&device, b, (size_t)c->n * bytes) : NULL,
                              .y = dy,
                              .m = c->m,
                              .n = c->n,
                              .k = c->k,
                              .x_stride = x_stride,
                              .y_stride = y_stride,
                              .dtype = c->dtype,
                              .accumulate = c->accumulate};
    CHECK_STATUS(kern_cuda_gemm(gemm, NULL, &a), BASE_OK);
    float *got = from_device(dy, y_elems);
    for (int64_t i = 0; i < y_elems; i++) {
        const int64_t m = i / y_stride;
        const int64_t n = i % y_stride;
        if (n >= c->n) {
            assert_true(got[i] == -12345.0f);
            continue;
        }
        double want = (c->bias ? parity_elem(b, n, c->dtype) : 0.0) + (c->accumulate ? 0.5 : 0.0);
        double xx = 0.0;
        double ww = 0.0;
        for (int64_t l = 0; l < c->k; l++) {
            const int64_t at = m * x_stride + l;
            const double xv = rounds ? parity_elem(x16, at, c->dtype) : (double)x[at];
            const double wv = parity_elem(w, n * c->k + l, c->dtype);
            want += xv * wv;
            xx += xv * xv;
            ww += wv * wv;
        }
        const double limit = 2e-6 * sqrt((double)c->k) * sqrt(xx) * sqrt(ww) + 1e-6;
        parity_near((double)got[i], want, limit, "y", i);
    }
    device_free(&device);
    free(got);
    free(x16);
    free(b);
    free(w);
    free(y);
    free(b32);
    free(w32);
    free(x);
}

static cuda_gemm *gemm_create(void)
{
    cuda_gemm *gemm = NULL;
    CHECK_STATUS(cuda_gemm_create(&base_heap, &gemm), BASE_OK);
    return gemm;
}

static void products_agree_with_fp64(void **state)
{
    static const int32_t shapes[][3] = {
        {1, 1, 8},   {1, 3, 72},   {1, 256, 2048}, {2, 130, 64},   {3, 33, 264},  {4, 64, 1032},
        {5, 65, 40}, {8, 67, 256}, {9, 257, 104},  {17, 8, 2056},  {64, 96, 512}, {257, 31, 40},
        {1, 5, 33},  {4, 7, 1},    {20, 33, 33},   {130, 128, 128}};
    cuda_gemm *gemm = gemm_create();
    (void)state;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t t = 0; t < 3; t++) {
            gemm_case c = {shapes[s][0], shapes[s][1], shapes[s][2], 0, 0, dtypes[t], false, false};
            check_case(gemm, &c);
            c.bias = true;
            c.accumulate = true;
            c.x_pad = 4;
            c.y_pad = 4;
            check_case(gemm, &c);
            c.x_pad = 3; /* rows that start anywhere */
            c.y_pad = 5;
            check_case(gemm, &c);
        }
    }
    cuda_gemm_destroy(gemm);
}

/* More shapes than are kept, twice: dropped plans are made again. */
static void shapes_beyond_the_cache_are_planned_again(void **state)
{
    cuda_gemm *gemm = gemm_create();
    (void)state;
    for (int32_t i = 0; i < 2 * 70; i++) {
        const gemm_case c = {9 + i % 70, 16, 16, 0, 0, BASE_BF16, false, false};
        check_case(gemm, &c);
    }
    cuda_gemm_destroy(gemm);
}

/* Beyond the largest half: the nearest one, not infinity. */
static void f16_rows_out_of_range_become_the_largest_half(void **state)
{
    enum { M = 9, N = 8, K = 8 };
    cuda_gemm *gemm = gemm_create();
    float x[M * K] = {0};
    uint16_t w[N * K] = {0};
    (void)state;
    for (int32_t i = 0; i < M; i++) {
        x[i * K] = i % 2 == 0 ? 1e6f : -1e6f;
    }
    for (int32_t i = 0; i < N; i++) {
        w[i * K] = base_f16_from_f32(1.0f);
    }
    parity_device device = {.n_held = 0};
    void *dy = on_device(x, sizeof x);
    const kern_gemm_args a = {.x = device_copy(&device, x, sizeof x),
                              .w = device_copy(&device, w, sizeof w),
                              .y = dy,
                              .m = M,
                              .n = N,
                              .k = K,
                              .x_stride = K,
                              .y_stride = N,
                              .dtype = BASE_F16};
    CHECK_STATUS(kern_cuda_gemm(gemm, NULL, &a), BASE_OK);
    float *y = from_device(dy, (int64_t)M * N);
    for (int32_t i = 0; i < M * N; i++) {
        assert_true(y[i] == (i / N % 2 == 0 ? 65504.0f : -65504.0f));
    }
    device_free(&device);
    free(y);
    cuda_gemm_destroy(gemm);
}

static void a_failed_allocation_is_reported_and_leaves_nothing(void **state)
{
    failing_alloc failing = {.fail_at = 0};
    const base_alloc mem = {failing_get, failing_put, &failing};
    cuda_gemm *gemm = NULL;
    (void)state;
    CHECK_STATUS(cuda_gemm_create(&mem, &gemm), BASE_NO_MEMORY);
    assert_null(gemm);
    failing.fail_at = -1;
    CHECK_STATUS(cuda_gemm_create(&mem, &gemm), BASE_OK);
    cuda_gemm_destroy(gemm);
    assert_int_equal(failing.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_agree_with_fp64),
        cmocka_unit_test(shapes_beyond_the_cache_are_planned_again),
        cmocka_unit_test(f16_rows_out_of_range_become_the_largest_half),
        cmocka_unit_test(a_failed_allocation_is_reported_and_leaves_nothing),
    };
    return PARITY_CUDA_MAIN(tests);
}
