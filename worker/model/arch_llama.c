/* LlamaForCausalLM: pre-norm attention and a gated MLP, no biases. */
#include "worker/model/arch.h"

static base_status bind_layer(weights *w, const model *m, int32_t i, model_layer *layer)
{
    const model_config *c = &m->config;
    const int32_t q_rows = c->n_heads * c->head_dim;
    const int32_t kv_rows = c->n_kv_heads * c->head_dim;
    const model_span ffn = m->split.ffn;
    const model_span heads = {m->split.heads.begin * c->head_dim, m->split.heads.end * c->head_dim};
    const struct {
        const char *part;
        model_slice slice;
        model_tensor *tensor;
    } parts[] = {
        {"input_layernorm.weight", {.rows = c->width}, &layer->attn_norm},
        {"self_attn.q_proj.weight", {.rows = q_rows, .cols = c->width}, &layer->q},
        {"self_attn.k_proj.weight", {.rows = kv_rows, .cols = c->width}, &layer->k},
        {"self_attn.v_proj.weight", {.rows = kv_rows, .cols = c->width}, &layer->v},
        {"self_attn.o_proj.weight", {.rows = c->width, .cols = q_rows, .col = heads}, &layer->o},
        {"post_attention_layernorm.weight", {.rows = c->width}, &layer->mlp_norm},
        {"mlp.gate_proj.weight",
         {.rows = c->ffn_width, .cols = c->width, .row = ffn},
         &layer->gate},
        {"mlp.up_proj.weight", {.rows = c->ffn_width, .cols = c->width, .row = ffn}, &layer->up},
        {"mlp.down_proj.weight",
         {.rows = c->width, .cols = c->ffn_width, .col = ffn},
         &layer->down},
    };
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        const base_status st =
            weights_take_layer(w, i, parts[p].part, &parts[p].slice, parts[p].tensor);
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
    const model_slice ids = {.rows = c->n_vocab, .cols = c->width, .row = m->split.vocab};
    const model_slice norm = {.rows = c->width};
    base_status st = BASE_OK;
    BASE_TRY(st, out, weights_take(w, "model.embed_tokens.weight", &ids, &m->embedding));
    for (int32_t i = 0; i < c->n_layers; i++) {
        BASE_TRY(st, out, bind_layer(w, m, i, &layers[i]));
        if (more != NULL) {
            BASE_TRY(st, out, more(w, c, i, &layers[i]));
        }
    }
    BASE_TRY(st, out, weights_take(w, "model.norm.weight", &norm, &m->final_norm));
    if (c->tied_embeddings) {
        weights_ignore(w, "lm_head.weight");
        m->head = m->embedding;
    } else {
        BASE_TRY(st, out, weights_take(w, "lm_head.weight", &ids, &m->head));
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
