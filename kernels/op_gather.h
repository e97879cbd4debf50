/* kernels/op_gather.h - takes rows of a matrix: those whose logits are asked for.
 *
 *   y[i, :] = x[rows[i], :]     x [n_x_rows, C] f32; rows [n_rows] in any order, repeats allowed; y [n_rows, C]
 *
 * Aliasing.  None.  Limits: n_rows >= 0; n_x_rows, C >= 1; 0 <= rows[i] < n_x_rows.  Numerics: exact.
 * Errors.    BAD_INPUT (a row, named; nothing written), DEVICE_LOST. */
#ifndef KERNELS_OP_GATHER_H
#define KERNELS_OP_GATHER_H

#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_gather_args {
    const float *x;
    const int32_t *rows;
    float *y;
    int32_t n_rows;
    int32_t n_x_rows;
    int32_t width;
} kern_gather_args;

BASE_MUST_CHECK base_status kern_gather(struct kern_ctx *ctx, const kern_gather_args *args);

#endif /* KERNELS_OP_GATHER_H */
