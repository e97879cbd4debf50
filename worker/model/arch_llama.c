/* LlamaForCausalLM: pre-norm attention and a gated MLP, no biases. */
#include "worker/model/arch.h"

static base_status bind_layer(weights *w, const model_config *c, int32_t i, model_layer *layer)
{
    const int32_t q_rows = c->n_heads * c->head_dim;
    const int32_t kv_rows = c->n_kv_heads * c->head_dim;
    const struct {
        const char *part;
        int32_t rows;
        int32_t cols;
        model_tensor *tensor;
    } parts[] = {
        {"input_layernorm.weight", c->width, 0, &layer->attn_norm},
        {"self_attn.q_proj.weight", q_rows, c->width, &layer->q},
        {"self_attn.k_proj.weight", kv_rows, c->width, &layer->k},
        {"self_attn.v_proj.weight", kv_rows, c->width, &layer->v},
        {"self_attn.o_proj.weight", c->width, q_rows, &layer->o},
        {"post_attention_layernorm.weight", c->width, 0, &layer->mlp_norm},
        {"mlp.gate_proj.weight", c->ffn_width, c->width, &layer->gate},
        {"mlp.up_proj.weight", c->ffn_width, c->width, &layer->up},
        {"mlp.down_proj.weight", c->width, c->ffn_width, &layer->down},
    };
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        const base_status st =
            weights_take_layer(w, i, parts[p].part, parts[p].rows, parts[p].cols, parts[p].tensor);
        if (st != BASE_OK) {
            return st;
        }
    }
    /* Old exports carry the frequencies that follow from rope_theta. */
    weights_ignore_layer(w, i, "self_attn.rotary_emb.inv_freq");
    return BASE_OK;
}

base_status arch_llama_bind(weights *w, model *m, model_layer *layers, arch_bind_more more)
{
    const model_config *c = &m->config;
    base_status st = BASE_OK;
    BASE_TRY(st, out,
             weights_take(w, "model.embed_tokens.weight", c->n_vocab, c->width, &m->embedding));
    for (int32_t i = 0; i < c->n_layers; i++) {
        BASE_TRY(st, out, bind_layer(w, c, i, &layers[i]));
        if (more != NULL) {
            BASE_TRY(st, out, more(w, c, i, &layers[i]));
        }
    }
    BASE_TRY(st, out, weights_take(w, "model.norm.weight", c->width, 0, &m->final_norm));
    if (c->tied_embeddings) {
        weights_ignore(w, "lm_head.weight");
        m->head = m->embedding;
    } else {
        BASE_TRY(st, out, weights_take(w, "lm_head.weight", c->n_vocab, c->width, &m->head));
    }
out:
    return st;
}

base_status arch_llama_run_layer(const block_step *b, const block_layer *layer)
{
    const base_status st = block_attn_run(b, layer);
    return st == BASE_OK ? block_mlp_run(b, layer) : st;
}

static base_status bind(weights *w, model *m, model_layer *layers)
{
    return arch_llama_bind(w, m, layers, NULL);
}

const arch arch_llama = {.bind = bind, .run_layer = arch_llama_run_layer};
