/* Qwen2ForCausalLM (Qwen2, Qwen2.5): Llama with biases of q, k and v. */
#include "worker/model/arch.h"

static base_status bind_biases(weights *w, const model_config *c, int32_t i, model_layer *layer)
{
    const model_slice q = {.rows = c->n_heads * c->head_dim};
    const model_slice kv = {.rows = c->n_kv_heads * c->head_dim};
    base_status st = BASE_OK;
    BASE_TRY(st, out, weights_take_layer(w, i, "self_attn.q_proj.bias", &q, &layer->q_bias));
    BASE_TRY(st, out, weights_take_layer(w, i, "self_attn.k_proj.bias", &kv, &layer->k_bias));
    BASE_TRY(st, out, weights_take_layer(w, i, "self_attn.v_proj.bias", &kv, &layer->v_bias));
out:
    return st;
}

static base_status bind(weights *w, model *m, model_layer *layers)
{
    return arch_llama_bind(w, m, layers, bind_biases);
}

const arch arch_qwen2 = {.bind = bind, .run_layer = arch_llama_run_layer};
