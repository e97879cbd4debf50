/* The CUDA kernels against the CPU reference, within the tolerance of each op's header.  Skips, saying so,
 * where there is no GPU. */
#include "kernels/cuda/cuda_ops.h"
#include "tests/support/parity_cuda.h"

static void rmsnorm_agrees(void **state)
{
    static const int32_t shapes[][2] = {{1, 1},    {3, 255},   {5, 256},  {7, 4096},
                                        {2, 8192}, {3, 16384}, {2, 8191}, {1, 20000}};
    static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < 8 * 3; i++) {
        const int32_t rows = shapes[i / 3][0];
        const int32_t cols = shapes[i / 3][1];
        const base_dtype t = dtypes[i % 3];
        const int64_t n = (int64_t)rows * cols;
        float *x = parity_normals(i, n, 3.0);
        float *w32 = parity_normals(100 + i, cols, 1.0);
        void *w = parity_elems(w32, cols, t);
        float *want = parity_memory(n, sizeof *want);
        kern_rmsnorm_args a = {x, w, want, rows, cols, 1e-5f, t};
        CHECK_STATUS(kern_rmsnorm(ctx, &a), BASE_OK);

        void *dx = on_device(x, (size_t)n * sizeof *x);
        void *dw = on_device(w, (size_t)cols * base_dtype_bytes(t));
        a.x = dx;
        a.weight = dw;
        a.y = dx; /* in place, as the contract allows */
        CHECK_STATUS(kern_cuda_rmsnorm(NULL, &a), BASE_OK);
        float *got = from_device(dx, n);
        check_close(got, want, n, 1e-6, 4e-6);
        (void)cudaFree(dw);
        free(got);
        free(want);
        free(w);
        free(w32);
        free(x);
    }
    kern_ctx_destroy(ctx);
}

static void swiglu_agrees(void **state)
{
    enum { T = 13, F = 1027, N = T * F };
    kern_ctx *ctx = parity_ctx(1);
    float *gate = parity_normals(1, N, 20.0);
    float *up = parity_normals(2, N, 1.0);
    float *want = parity_memory(N, sizeof *want);
    (void)state;
    kern_swiglu_args a = {gate, up, want, T, F};
    CHECK_STATUS(kern_swiglu(ctx, &a), BASE_OK);

    void *dg = on_device(gate, N * sizeof *gate);
    void *du = on_device(up, N * sizeof *up);
    a.gate = dg;
    a.up = du;
    a.y = dg;
    CHECK_STATUS(kern_cuda_swiglu(NULL, &a), BASE_OK);
    float *got = from_device(dg, N);
    check_close(got, want, N, 1e-30, 2e-6);
    (void)cudaFree(du);
    free(got);
    free(want);
    free(up);
    free(gate);
    kern_ctx_destroy(ctx);
}

static void merge_agrees_on_empty_and_broken_ranks_too(void **state)
{
    static const int32_t dims[] = {1, 64, 128, 256};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        enum { RANKS = 4, ROWS = 37 };
        const int32_t dim = dims[i];
        const int64_t stride = (int64_t)ROWS * (dim + 1) + 3;
        float *partials = parity_normals(10 + i, RANKS * stride, 2.0);
        float *want = parity_memory((int64_t)ROWS * (dim + 1), sizeof *want);
        for (int32_t r = 0; r < RANKS; r++) {
            float *lse = partials + r * stride + (int64_t)ROWS * dim;
            lse[0] = -INFINITY;                   /* nobody has row 0 */
            lse[1] = r == 2 ? 5.0f : -INFINITY;   /* one rank has row 1 */
            lse[2] = r == 1 ? -INFINITY : lse[2]; /* rank 1 is empty there, and its o is garbage */
            lse[3] = r == 3 ? NAN : lse[3];
            lse[4] *= 1000.0f; /* weights that underflow */
        }
        for (int32_t d = 0; d < dim; d++) {
            partials[stride + 2 * dim + d] = NAN;
        }
        kern_merge_args a = {.partials = partials,
                             .rank_stride = stride,
                             .o = want,
                             .lse = want + (int64_t)ROWS * dim,
                             .n_ranks = RANKS,
                             .rows = ROWS,
                             .head_dim = dim};
        CHECK_STATUS(kern_merge(ctx, &a), BASE_OK);

        void *dp = on_device(partials, (size_t)(RANKS * stride) * sizeof *partials);
        void *dout = on_device(want, (size_t)ROWS * (size_t)(dim + 1) * sizeof *want);
        assert_int_equal(cudaMemset(dout, 0xff, (size_t)ROWS * (size_t)(dim + 1) * 4), cudaSuccess);
        a.partials = dp;
        a.o = dout;
        a.lse = a.o + (int64_t)ROWS * dim;
        CHECK_STATUS(kern_cuda_merge(NULL, &a), BASE_OK);
        float *got = from_device(dout, (int64_t)ROWS * (dim + 1));
        check_close(got, want, (int64_t)ROWS * (dim + 1), 2e-6, 2e-6);
        (void)cudaFree(dp);
        free(got);
        free(want);
        free(partials);
    }
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rmsnorm_agrees),
        cmocka_unit_test(swiglu_agrees),
        cmocka_unit_test(merge_agrees_on_empty_and_broken_ranks_too),
    };
    return PARITY_CUDA_MAIN(tests);
}
