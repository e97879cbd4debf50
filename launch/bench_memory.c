#include "launch/bench_memory.h"

static void *counting_get(void *ctx, size_t bytes)
{
    void *p = base_heap.get(base_heap.ctx, bytes);
    if (p != NULL) {
        (void)__atomic_add_fetch(&((bench_counter *)ctx)->n_bytes, (int64_t)bytes,
                                 __ATOMIC_RELAXED);
    }
    return p;
}

static void counting_put(void *ctx, void *p)
{
    (void)ctx;
    base_heap.put(base_heap.ctx, p);
}

base_alloc bench_counting_heap(bench_counter *counter)
{
    return (base_alloc){counting_get, counting_put, counter};
}

static int64_t tensor_bytes(const model_tensor *t, int64_t n_elems)
{
    return t->data != NULL ? n_elems * (int64_t)base_dtype_bytes(t->dtype) : 0;
}

int64_t bench_weight_bytes(const model *m)
{
    const model_config *c = &m->config;
    const int64_t width = c->width;
    const int64_t q = (int64_t)c->n_heads * c->head_dim;
    const int64_t kv = (int64_t)c->n_kv_heads * c->head_dim;
    int64_t n =
        tensor_bytes(&m->embedding, c->n_vocab * width) + tensor_bytes(&m->final_norm, width);

    if (m->head.data != m->embedding.data) {
        n += tensor_bytes(&m->head, c->n_vocab * width);
    }
    for (int32_t i = 0; i < c->n_layers; i++) {
        const model_layer *l = &m->layers[i];
        n += tensor_bytes(&l->attn_norm, width) + tensor_bytes(&l->mlp_norm, width);
        n += tensor_bytes(&l->q, q * width) + tensor_bytes(&l->o, q * width);
        n += tensor_bytes(&l->k, kv * width) + tensor_bytes(&l->v, kv * width);
        n += tensor_bytes(&l->q_bias, q) + tensor_bytes(&l->k_bias, kv);
        n += tensor_bytes(&l->v_bias, kv) + tensor_bytes(&l->q_norm, c->head_dim);
        n += tensor_bytes(&l->k_norm, c->head_dim);
        n += tensor_bytes(&l->gate, c->ffn_width * width);
        n += tensor_bytes(&l->up, c->ffn_width * width);
        n += tensor_bytes(&l->down, c->ffn_width * width);
    }
    return n;
}
