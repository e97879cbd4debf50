/* worker/model/block.h - the parts that layers are built from.
 *
 * Each block reads the residual scratch->x [Tr, C] of the rank's Tr rows, and adds its output to it.  Numbers are f32, weights
 * are read as they are on disk.  Errors: what the ops and the exchange return. */
#ifndef WORKER_MODEL_BLOCK_H
#define WORKER_MODEL_BLOCK_H

#include "base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "kvshard/shard.h"
#include "worker/model/forward.h"
#include "worker/model/model.h"
#include "worker/model/rows.h"
#include "worker/model/scratch.h"

typedef struct block_step { /* the same for all layers of a step */
    kern_ctx *ctx;
    comm *ranks;
    int64_t timeout_ms; /* of the exchange */
    const model_config *config;
    const model_split *split;
    const kv_step *step;
    model_rows rows; /* of the step */
    const scratch *scratch;
    forward_observer observer; /* or NULL */
    void *observer_ctx;
} block_step;

typedef struct block_layer {
    const model_layer *weights;
    const kern_head_format *formats; /* [Hkv] */
    const kern_open *opens;          /* [step->n_opens] */
    int32_t index;                   /* of the layer */
} block_layer;

/* norm, q/k/v with their biases and head norms, RoPE, the cache, attention over all ranks, output
 * projection.  Collective. */
BASE_MUST_CHECK base_status block_attn_run(const block_step *b, const block_layer *layer);

/* norm, SwiGLU MLP.  Collective if ranks share the weights. */
BASE_MUST_CHECK base_status block_mlp_run(const block_step *b, const block_layer *layer);

/* scratch->x += y [Tr, k] w^T, of all ranks' y and w where they share the weights.  Collective. */
BASE_MUST_CHECK base_status block_add(const block_step *b, const float *y, int32_t k,
                                      const model_tensor *w);

/* scratch->x, of which each rank has a part, becomes the sum of the parts, if ranks share the weights.  Collective. */
BASE_MUST_CHECK base_status block_sum(const block_step *b);

#endif /* WORKER_MODEL_BLOCK_H */
