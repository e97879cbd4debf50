/* kernels/op_gemm.h - rows times a weight matrix.
 *
 *   y[m, n] = sum_k x[m, k] * w[n, k]  (+ bias[n])  (+ y[m, n] if accumulate)
 *
 *   x  [M, K]  f32, row stride x_stride elements
 *   w  [N, K]  dtype, contiguous (a Hugging Face Linear weight as it is on disk; read where it is mapped)
 *   y  [M, N]  f32, row stride y_stride elements
 *   bias [N]   dtype, or NULL
 *
 * Aliasing.   y overlaps nothing.
 * Limits.     M >= 0, N >= 1, K >= 1, strides >= row lengths.
 * Numerics.   f32 accumulation, order free: |y - fp64| <= 2e-6 * sqrt(K) * |x||w| of the row.
 * Workspace.  Fixed panel in the context for 16-bit weights.
 * Errors.     BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_GEMM_H
#define KERNELS_OP_GEMM_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct kern_ctx;

typedef struct kern_gemm_args {
    const float *x;
    const void *w;
    const void *bias;
    float *y;
    int32_t m;
    int32_t n;
    int32_t k;
    int32_t x_stride;
    int32_t y_stride;
    base_dtype dtype; /* of w and bias */
    bool accumulate;
} kern_gemm_args;

BASE_MUST_CHECK base_status kern_gemm(struct kern_ctx *ctx, const kern_gemm_args *args);

#endif /* KERNELS_OP_GEMM_H */
