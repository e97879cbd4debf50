/* tests/support/gemm_case.h - one product on the GPU against fp64.  Where x is rounded to 16 bits first, the
 * reference rounds it too, so that the limit is op_gemm.h's for all. */
#ifndef TESTS_SUPPORT_GEMM_CASE_H
#define TESTS_SUPPORT_GEMM_CASE_H

#include "kernels/cuda/cuda_gemm.h"
#include "tests/support/parity_cuda.h"

typedef struct gemm_case {
    int32_t m, n, k, x_pad, y_pad;
    base_dtype dtype;
    bool bias;
    bool accumulate;
} gemm_case;

static inline void gemm_case_check(cuda_gemm *gemm, const gemm_case *c)
{
    const int32_t x_stride = c->k + c->x_pad;
    const int32_t y_stride = c->n + c->y_pad;
    const int64_t x_elems = (int64_t)c->m * x_stride;
    const int64_t y_elems = (int64_t)c->m * y_stride;
    const int64_t w_elems = (int64_t)c->n * c->k;
    const bool rounds = c->m > CUDA_SPLIT_ROWS && c->k % 8 == 0 && c->dtype != BASE_F32;
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

static inline cuda_gemm *gemm_case_state(void)
{
    cuda_gemm *gemm = NULL;
    CHECK_STATUS(cuda_gemm_create(&base_heap, &gemm), BASE_OK);
    return gemm;
}

/* Every dtype, plain, with bias on what y holds, and with rows that start anywhere. */
static inline void gemm_case_check_all(cuda_gemm *gemm, int32_t m, int32_t n, int32_t k)
{
    static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};
    for (size_t t = 0; t < 3; t++) {
        gemm_case c = {m, n, k, 0, 0, dtypes[t], false, false};
        gemm_case_check(gemm, &c);
        c.bias = true;
        c.accumulate = true;
        c.x_pad = 4;
        c.y_pad = 4;
        gemm_case_check(gemm, &c);
        c.x_pad = 3;
        c.y_pad = 5;
        gemm_case_check(gemm, &c);
    }
}

#endif /* TESTS_SUPPORT_GEMM_CASE_H */
