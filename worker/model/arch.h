/* worker/model/arch.h - what an architecture provides: how its weights are called, and its layer.
 *
 * A new one is a line in archs.def and, where it differs, a file arch_<name>.c made of the blocks of
 * block.h. */
#ifndef WORKER_MODEL_ARCH_H
#define WORKER_MODEL_ARCH_H

#include "base/status.h"
#include "worker/model/block.h"
#include "worker/model/model.h"
#include "worker/model/weights.h"

typedef struct arch {
    /* Fills m's embedding, final_norm and head, and layers [L].  Errors: BAD_FILE. */
    base_status (*bind)(weights *w, model *m, model_layer *layers);
    /* Takes the residual b->scratch->x [T, C] through one layer.  Errors: as of the ops and comm. */
    base_status (*run_layer)(const block_step *b, const block_layer *layer);
} arch;

#define X(NAME, impl, model_type, class_name) extern const arch arch_##impl;
#include "worker/model/archs.def"
#undef X

const arch *arch_of(model_arch id);

/* Takes what layer i has beside Llama's tensors.  Errors: BAD_FILE. */
typedef base_status (*arch_bind_more)(weights *w, const model_config *c, int32_t i,
                                      model_layer *layer);

/* bind of a model with Llama's tensor names; more may be NULL. */
base_status arch_llama_bind(weights *w, model *m, model_layer *layers, arch_bind_more more);
/* run_layer of a pre-norm layer; biases and head norms that were bound are applied. */
base_status arch_llama_run_layer(const block_step *b, const block_layer *layer);

#endif /* WORKER_MODEL_ARCH_H */
