/* kernels/op_deal.h - puts the partials of all heads in the order of the ranks that own heads, for an exchange in which each
 * rank gets its own heads alone.
 *
 *   x  o [T, H, D] f32, then lse [T, H] f32
 *   y  for each rank r in turn, with its heads begins[r] .. begins[r + 1], Hr of them:
 *        o [T, Hr, D] f32, then lse [T, Hr] f32: what op_merge.h takes from a rank
 *
 *   begins  [n_ranks + 1]  the host's, read by the call: from 0 to H, each rank one head or more
 *
 * Aliasing.  None.
 * Limits.    T >= 0; 1 <= n_ranks <= KERN_DEAL_MAX_RANKS; D a multiple of 4.
 * Numerics.  Copies.
 * Errors.    BAD_INPUT (a limit is broken, nothing written), DEVICE_LOST. */
#ifndef KERNELS_OP_DEAL_H
#define KERNELS_OP_DEAL_H

#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

#define KERN_DEAL_MAX_RANKS 256

typedef struct kern_deal_args {
    const float *x;
    float *y;
    const int32_t *begins;
    int32_t n_ranks;
    int32_t n_tokens;
    int32_t n_heads;
    int32_t head_dim;
} kern_deal_args;

BASE_MUST_CHECK base_status kern_deal(struct kern_ctx *ctx, const kern_deal_args *args);

#endif /* KERNELS_OP_DEAL_H */
