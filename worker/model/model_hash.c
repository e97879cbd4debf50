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

/* Nothing for a model without scaling: its hash is what it was before there was any. */
static void add_rope(base_hasher *h, const rope_scaling *s)
{
    if (s->kind == ROPE_DEFAULT) {
        return;
    }
    const double values[] = {s->factor,           s->original_context, s->low_freq_factor,
                             s->high_freq_factor, s->beta_fast,        s->beta_slow,
                             s->attention_factor};
    base_hasher_add_u64(h, (uint64_t)s->kind);
    base_hasher_add_u64(h, s->truncate ? 1u : 0u);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        base_hasher_add_u64(h, bits);
    }
}

static void add_sample(base_hasher *h, const base_map *map, size_t begin)
{
    const size_t rest = map->n_bytes - begin;
    base_hasher_add(h, map->bytes + begin,
                    rest < MODEL_HASH_SAMPLE_BYTES ? rest : MODEL_HASH_SAMPLE_BYTES);
}

/* The directory starts after the 8 bytes of its length; the first tensor follows it. */
static size_t header_bytes(const checkpoint_file *f)
{
    size_t n = f->map.n_bytes;
    for (int32_t i = 0; i < f->index->n_entries; i++) {
        n = f->index->entries[i].begin < n ? f->index->entries[i].begin : n;
    }
    return n;
}

static void add_file(base_hasher *h, const checkpoint_file *f)
{
    const size_t n_header_bytes = header_bytes(f);
    base_hasher_add_u64(h, f->map.n_bytes);
    base_hasher_add_u64(h, n_header_bytes);
    base_hasher_add(h, f->map.bytes, n_header_bytes);
    for (size_t at = n_header_bytes; at < f->map.n_bytes; at += MODEL_HASH_STRIDE_BYTES) {
        add_sample(h, &f->map, at);
    }
    if (f->map.n_bytes >= MODEL_HASH_SAMPLE_BYTES) {
        add_sample(h, &f->map, f->map.n_bytes - MODEL_HASH_SAMPLE_BYTES);
    }
}

base_status model_hash_compute(const model_config *config, const checkpoint *files,
                               base_view tokenizer_json, base_hash *hash_out)
{
    base_hasher *h = NULL;
    const base_status st = base_hasher_create(&h);
    if (st != BASE_OK) {
        return st;
    }
    base_hasher_add_text(h, "ropewalk model 1");
    add_config(h, config);
    add_rope(h, &config->rope);
    base_hasher_add_u64(h, tokenizer_json.n_bytes);
    base_hasher_add(h, tokenizer_json.data, tokenizer_json.n_bytes);
    for (int32_t i = 0; i < files->n_files; i++) {
        add_file(h, &files->files[i]);
    }
    *hash_out = base_hasher_end(h);
    return BASE_OK;
}

base_status model_hash_random(const model_config *config, uint64_t seed, base_hash *hash_out)
{
    base_hasher *h = NULL;
    const base_status st = base_hasher_create(&h);
    if (st != BASE_OK) {
        return st;
    }
    base_hasher_add_text(h, "ropewalk random model 1");
    add_config(h, config);
    add_rope(h, &config->rope);
    base_hasher_add_u64(h, seed);
    *hash_out = base_hasher_end(h);
    return BASE_OK;
}
