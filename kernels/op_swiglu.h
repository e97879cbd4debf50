/* kernels/op_swiglu.h - the gated activation of Llama's MLP.
 *
 *   y[t, f] = g / (1 + exp(-g)) * u     g = gate[t, f], u = up[t, f]
 *
 *   gate, up  [T, F]  f32, contiguous;  y [T, F]
 *
 * Aliasing.  y may be gate or up.  Limits: T >= 0, F >= 1.
 * Numerics.  f32, within 1e-6 relative of fp64.  Errors: BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_SWIGLU_H
#define KERNELS_OP_SWIGLU_H

#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_swiglu_args {
    const float *gate;
    const float *up;
    float *y;
    int32_t n_tokens;
    int32_t width;
} kern_swiglu_args;

BASE_MUST_CHECK base_status kern_swiglu(struct kern_ctx *ctx, const kern_swiglu_args *args);

#endif /* KERNELS_OP_SWIGLU_H */
