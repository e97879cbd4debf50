/* kernels/op_project.h - normalised rows times up to three weight matrices that read the same rows.
 *
 *   h[m, :]   = x[m, :] / sqrt(mean over k of x[m, k]^2 + eps) * norm[:]
 *   y_i[m, n] = sum_k h[m, k] * w_i[n, k]  (+ bias_i[n])                       for each part i
 *
 *   x       [M, K]    f32, contiguous
 *   norm    [K]       norm_dtype
 *   h       [M, K]    f32: room; what it holds afterwards is nobody's business
 *   w_i     [N_i, K]  dtype, as in op_gemm.h
 *   bias_i  [N_i]     bias_dtype, or NULL
 *   y_i     [M, N_i]  f32, contiguous
 *
 * Aliasing.   h may be x.  y_i overlaps nothing.
 * Limits.     M >= 0, K >= 1, 1..KERN_PROJECT_PARTS parts, N_i >= 1.
 * Numerics.   Against fp64: |y - fp64| <= 2e-6 * (sqrt(K) + 2) * |h||w| of the row.  The same bits as op_rmsnorm.h,
 *             op_gemm.h and op_bias.h one after the other on the CPU.
 * Errors.     BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_PROJECT_H
#define KERNELS_OP_PROJECT_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

#define KERN_PROJECT_PARTS 3

typedef struct kern_project_part {
    const void *w;
    const void *bias;
    float *y;
    int32_t n;
    base_dtype dtype; /* of w */
    base_dtype bias_dtype;
} kern_project_part;

typedef struct kern_project_args {
    const float *x;
    const void *norm;
    float *h;
    kern_project_part parts[KERN_PROJECT_PARTS];
    int32_t n_parts;
    int32_t m;
    int32_t k;
    float eps;
    base_dtype norm_dtype;
} kern_project_args;

BASE_MUST_CHECK base_status kern_project(struct kern_ctx *ctx, const kern_project_args *args);

#endif /* KERNELS_OP_PROJECT_H */
