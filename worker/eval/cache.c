#include "worker/eval/cache.h"

#include "base/half.h"

enum { BLOCK = KERN_BLOCK_TOKENS };

base_status eval_cache_create(const kv_policy *policy, const kv_shape *shape,
                              const kv_calibration *calibration, const base_alloc *mem,
                              eval_cache **cache_out)
{
    base_status st = BASE_OK;
    kv_policy pages = *policy;
    eval_cache *cache = mem->get(mem->ctx, sizeof *cache);
    if (cache == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "cache of a policy");
        goto out;
    }
    cache->mem = *mem;
    if (policy->paper != 0) { /* V is tq's; K of 16 bits is bf16 in the model's order */
        pages = (kv_policy){.kind = KV_POLICY_TQ, .k_bits = 16, .v_bits = policy->v_bits};
        BASE_TRY(st, out, kv_format_check_calibration(policy, shape, calibration));
        BASE_TRY(st, out,
                 eval_free_groups_create(calibration, policy->k_bits, mem, &cache->groups));
    }
    BASE_TRY(st, out, kv_format_create_calibrated(&pages, shape, calibration, mem, &cache->format));
    *cache_out = cache;
    cache = NULL;
out:
    eval_cache_destroy(cache);
    return st;
}

void eval_cache_destroy(eval_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    const base_alloc mem = cache->mem;
    kv_format_destroy(cache->format);
    eval_free_groups_destroy(cache->groups);
    mem.put(mem.ctx, cache);
}

void eval_cache_fill(const eval_cache *cache, uint8_t *page)
{
    const kv_shape *shape = &cache->format->shape;
    const int32_t d = shape->head_dim;
    float key[KERN_MAX_HEAD_DIM];

    for (int32_t i = 0; cache->groups != NULL && i < shape->n_layers * shape->n_kv_heads; i++) {
        const kern_head_format *head = &cache->format->heads[i];
        uint16_t *rows =
            (uint16_t *)(void *)(page + head->offset + head->k.segments[0].codes_offset);
        for (int32_t t = 0; t < BLOCK; t++) {
            uint16_t *row = rows + (int64_t)t * d;
            for (int32_t j = 0; j < d; j++) {
                key[j] = base_f32_from_bf16(row[j]);
            }
            eval_free_groups_apply(cache->groups, i / shape->n_kv_heads, i % shape->n_kv_heads,
                                   key);
            for (int32_t j = 0; j < d; j++) {
                row[j] = base_bf16_from_f32(key[j]);
            }
        }
    }
}

double eval_cache_layer_k_bits(const eval_cache *cache, int32_t layer)
{
    const kv_shape *shape = &cache->format->shape;
    const int32_t n_elems = shape->n_kv_heads * shape->head_dim; /* of a position */
    int64_t n_bytes = 0;                                         /* of a block */
    if (cache->groups != NULL) {
        return 8.0 * eval_free_groups_bytes(cache->groups, layer) / n_elems;
    }
    for (int32_t h = 0; h < shape->n_kv_heads; h++) { /* V begins where K ends */
        n_bytes += kv_format_layer(cache->format, layer)[h].v.segments[0].codes_offset;
    }
    return 8.0 * (double)n_bytes / BLOCK / n_elems;
}

double eval_cache_k_bits(const eval_cache *cache)
{
    const int32_t n_layers = cache->format->shape.n_layers;
    double sum = 0.0;
    for (int32_t l = 0; l < n_layers; l++) {
        sum += eval_cache_layer_k_bits(cache, l);
    }
    return sum / n_layers;
}

double eval_cache_v_bits(const eval_cache *cache)
{
    return cache->format->v_bits_per_element;
}

double eval_cache_bytes_per_token(const eval_cache *cache)
{
    const kv_shape *shape = &cache->format->shape;
    const double n_elems = (double)shape->n_layers * shape->n_kv_heads * shape->head_dim;
    return (eval_cache_k_bits(cache) + eval_cache_v_bits(cache)) * n_elems / 8.0;
}
