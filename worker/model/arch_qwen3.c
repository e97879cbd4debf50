/* Qwen3ForCausalLM: Llama with a norm over each head of q and of k, before RoPE. */
#include "worker/model/arch.h"

static base_status bind_norms(weights *w, const model_config *c, int32_t i, model_layer *layer)
{
    const model_slice norm = {.rows = c->head_dim};
    const base_status st =
        weights_take_layer(w, i, "self_attn.q_norm.weight", &norm, &layer->q_norm);
    return st != BASE_OK
               ? st
               : weights_take_layer(w, i, "self_attn.k_norm.weight", &norm, &layer->k_norm);
}

static base_status bind(weights *w, model *m, model_layer *layers)
{
    return arch_llama_bind(w, m, layers, bind_norms);
}

const arch arch_qwen3 = {.bind = bind, .run_layer = arch_llama_run_layer};
