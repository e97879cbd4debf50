/* kernels/op_embed.h - looks up rows: of the embedding, or of activations those whose logits are asked for.
 *
 *   y[t, :] = table[id, :]     table [V, C] dtype; y [T, C] f32
 *   id = ids[t], or, if that is below 0, recent[-1 - ids[t]]: a token that the host has not seen yet (op_sample.h)
 *
 * With end above 0 the table holds the rows of ids begin..end-1 alone, and y of other ids is 0: summed over ranks that hold
 * a part each, y is as above, in every bit but the sign of zeros.
 *
 * Limits.  0 <= begin < end <= V, or both 0; T >= 0; -n_recent <= ids[t] < V; recent [n_recent] holds ids of the table, which nobody checks.
 * Errors: BAD_INPUT (an id, named; nothing written), DEVICE_LOST. */
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
    int32_t n_recent;
    const int32_t *recent; /* NULL if n_recent is 0 */
    int32_t begin;
    int32_t end;
} kern_embed_args;

BASE_MUST_CHECK base_status kern_embed(struct kern_ctx *ctx, const kern_embed_args *args);

#endif /* KERNELS_OP_EMBED_H */
