/* kernels/op_bias.h - adds one vector to every row.
 *
 *   x[r, c] += bias[c]
 *
 *   x     [rows, cols]  f32, contiguous, in place
 *   bias  [cols]        dtype
 *
 * Limits.    rows >= 0, cols >= 1.  Numerics: one f32 addition an element.
 * Errors.    BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_BIAS_H
#define KERNELS_OP_BIAS_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_bias_args {
    float *x;
    const void *bias;
    int32_t rows;
    int32_t cols;
    base_dtype dtype; /* of bias */
} kern_bias_args;

BASE_MUST_CHECK base_status kern_bias(struct kern_ctx *ctx, const kern_bias_args *args);

#endif /* KERNELS_OP_BIAS_H */
