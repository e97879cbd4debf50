/* kernels/op_turns.h - by how much rotary position embedding turns each pair of dims of a step's tokens, the same in
 * every layer and head.
 *
 *   a = positions[t] * inv_freq[i];  turns[t, i, :] = (cos a, sin a)
 *
 *   positions  [T]            0 <= p < 2^31
 *   inv_freq   [D/2]          f32
 *   turns      [T, D/2, 2]    f32
 *
 * Numerics.  Angles, sine and cosine in double from the f32 frequencies (f32 angles carry 0.03 rad of
 *            error at 8e5 positions), rounded to f32 once.
 * Limits.    T >= 0; D even, 2..KERN_MAX_HEAD_DIM.  Errors: BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_TURNS_H
#define KERNELS_OP_TURNS_H

#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_turns_args {
    const int64_t *positions;
    const float *inv_freq;
    float *turns;
    int32_t n_tokens;
    int32_t head_dim;
} kern_turns_args;

BASE_MUST_CHECK base_status kern_turns(struct kern_ctx *ctx, const kern_turns_args *args);

#endif /* KERNELS_OP_TURNS_H */
