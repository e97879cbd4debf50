#include "worker/model/model_hash.h"

#include "base/half.h"

static void add_config(base_hasher *h, const model_config *c)
{
    uint64_t theta_bits;
    memcpy(&theta_bits, &c->rope_theta, sizeof theta_bits);
    const uint64_t values[] = {
        (uint64_t)c->arch,
        (uint64_t)c->n_layers,
        (uint64_t)c->width,
        (uint64_t)c->n_heads,
        (uint64_t)c->n_kv_heads,
        (uint64_t)c->head_dim,
        (uint64_t)c->ffn_width,
        (uint64_t)c->n_vocab,
        (uint64_t)c->max_context,
        base_f32_bits(c->rms_eps),
        theta_bits,
        c->tied_embeddings ? 1u : 0u,
        (uint64_t)c->n_eos_ids,
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        base_hasher_add_u64(h, values[i]);
    }
    for (int32_t i = 0; i < c->n_eos_ids; i++) {
        base_hasher_add_u64(h, (uint64_t)c->eos_ids[i]);
    }
}

static void add_sample(base_hasher *h, const base_map *map, size_t begin)
{
    const size_t rest = map->n_bytes - begin;
    base_hasher_add(h, map->bytes + begin,
                    rest < MODEL_HASH_SAMPLE_BYTES ? rest : MODEL_HASH_SAMPLE_BYTES);
}

base_status model_hash_compute(const model_config *config, const base_map *weights,
                               size_t n_header_bytes, base_view tokenizer_json, base_hash *hash_out)
{
    base_hasher *h = NULL;
    const base_status st = base_hasher_create(&h);
    if (st != BASE_OK) {
        return st;
    }
    base_hasher_add_text(h, "ropewalk model 1");
    add_config(h, config);
    base_hasher_add_u64(h, tokenizer_json.n_bytes);
    base_hasher_add(h, tokenizer_json.data, tokenizer_json.n_bytes);
    base_hasher_add_u64(h, weights->n_bytes);
    base_hasher_add_u64(h, n_header_bytes);
    base_hasher_add(h, weights->bytes, n_header_bytes);
    for (size_t at = n_header_bytes; at < weights->n_bytes; at += MODEL_HASH_STRIDE_BYTES) {
        add_sample(h, weights, at);
    }
    if (weights->n_bytes >= MODEL_HASH_SAMPLE_BYTES) {
        add_sample(h, weights, weights->n_bytes - MODEL_HASH_SAMPLE_BYTES);
    }
    *hash_out = base_hasher_end(h);
    return BASE_OK;
}
