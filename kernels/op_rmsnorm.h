/* kernels/op_rmsnorm.h - root-mean-square normalisation of rows.
 *
 *   y[r, c] = x[r, c] / sqrt(mean over c of x[r, c]^2 + eps) * weight[c]
 *
 *   x, y    [rows, cols]  f32, contiguous
 *   weight  [cols]        dtype
 *
 * Aliasing.  y may be x.  Limits: rows >= 0, cols >= 1.
 * Numerics.  f32 sums; against fp64 within 2e-6 relative to the row's largest element.
 * Errors.    BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_RMSNORM_H
#define KERNELS_OP_RMSNORM_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_rmsnorm_args {
    const float *x;
    const void *weight;
    float *y;
    int32_t rows;
    int32_t cols;
    float eps;
    base_dtype dtype; /* of weight */
} kern_rmsnorm_args;

BASE_MUST_CHECK base_status kern_rmsnorm(struct kern_ctx *ctx, const kern_rmsnorm_args *args);

#endif /* KERNELS_OP_RMSNORM_H */
