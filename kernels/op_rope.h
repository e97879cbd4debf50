/* kernels/op_rope.h - rotary position embedding, half-split pairs (i, i + D/2) as in Hugging Face
 * checkpoints.  (Su et al., arXiv 2104.09864, section 3.)
 *
 *   (x_i, x_{i+D/2}) <- (x_i cos a - x_{i+D/2} sin a,  x_{i+D/2} cos a + x_i sin a)
 *
 *   x      [T, n_heads, D]  f32, in place; row stride of a token is x_stride elements
 *   turns  [T, D/2, 2]      f32, cos a and sin a of each token and pair (op_turns.h)
 *
 * Numerics.  f32: two products and their sum, each rounded.
 * Limits.    D even, 2..KERN_MAX_HEAD_DIM.  Errors: BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_ROPE_H
#define KERNELS_OP_ROPE_H

#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_rope_args {
    float *x;
    const float *turns;
    int32_t n_tokens;
    int32_t n_heads;
    int32_t head_dim;
    int32_t x_stride;
} kern_rope_args;

BASE_MUST_CHECK base_status kern_rope(struct kern_ctx *ctx, const kern_rope_args *args);

#endif /* KERNELS_OP_ROPE_H */
