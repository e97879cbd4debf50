/* kernels/op_embed.h - looks up rows: of the embedding, or of activations those whose logits are asked for.
 *
 *   y[t, :] = table[ids[t], :]     table [V, C] dtype; y [T, C] f32
 *
 * Limits.  T >= 0; 0 <= ids[t] < V.  Errors: BAD_INPUT (an id, named; nothing written), DEVICE_LOST. */
#ifndef KERNELS_OP_EMBED_H
#define KERNELS_OP_EMBED_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_embed_args {
    const int32_t *ids;
    const void *table;
    float *y;
    int32_t n_tokens;
    int32_t n_vocab;
    int32_t width;
    base_dtype dtype;
} kern_embed_args;

BASE_MUST_CHECK base_status kern_embed(struct kern_ctx *ctx, const kern_embed_args *args);

#endif /* KERNELS_OP_EMBED_H */
