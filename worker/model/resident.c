#include "worker/model/resident.h"

#include <stdbool.h>
#include <stddef.h>

#define N_LAYER_TENSORS 14
#define N_MODEL_TENSORS 3

/* Tensor i of the model: first those outside the layers, then layer by layer.  Without data: not in this model. */
static const model_tensor *tensor_at(const model *m, int64_t i)
{
    const model_tensor *of_model[N_MODEL_TENSORS] = {&m->embedding, &m->final_norm, &m->head};
    if (i < N_MODEL_TENSORS) {
        return of_model[i];
    }
    const model_layer *l = &m->layers[(i - N_MODEL_TENSORS) / N_LAYER_TENSORS];
    const model_tensor *of_layer[N_LAYER_TENSORS] = {
        &l->attn_norm, &l->q,      &l->k,      &l->v,        &l->o,    &l->q_bias, &l->k_bias,
        &l->v_bias,    &l->q_norm, &l->k_norm, &l->mlp_norm, &l->gate, &l->up,     &l->down};
    return of_layer[(i - N_MODEL_TENSORS) % N_LAYER_TENSORS];
}

static int64_t n_tensors(const model *m)
{
    return N_MODEL_TENSORS + (int64_t)m->config.n_layers * N_LAYER_TENSORS;
}

static size_t n_bytes_of(const model_tensor *t)
{
    return (size_t)t->n_elems * base_dtype_bytes(t->dtype);
}

/* Unbinds tensors [0, end). */
static void unbind_first(kern_ctx *ctx, const model *m, int64_t end)
{
    for (int64_t i = 0; i < end; i++) {
        kern_unbind(ctx, tensor_at(m, i)->data);
    }
}

base_status resident_bind(kern_ctx *ctx, const model *m)
{
    for (int64_t i = 0; i < n_tensors(m); i++) {
        const model_tensor *t = tensor_at(m, i);
        const base_status st = t->data == NULL ? BASE_OK : kern_bind(ctx, t->data, n_bytes_of(t));
        if (st != BASE_OK) {
            unbind_first(ctx, m, i);
            return st;
        }
    }
    return BASE_OK;
}

void resident_unbind(kern_ctx *ctx, const model *m)
{
    unbind_first(ctx, m, n_tensors(m));
}

int64_t resident_bytes(const model *m)
{
    int64_t n_bytes = 0;
    for (int64_t i = 0; i < n_tensors(m); i++) {
        const model_tensor *t = tensor_at(m, i);
        const bool tied = t == &m->head && t->data == m->embedding.data;
        n_bytes += t->data == NULL || tied ? 0 : (int64_t)n_bytes_of(t);
    }
    return n_bytes;
}
