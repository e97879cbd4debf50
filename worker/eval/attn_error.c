#include "worker/eval/attn_error.h"

#include "base/checked.h"

#include <math.h>
#include <string.h>

enum { BLOCK = KERN_BLOCK_TOKENS };

typedef struct layer_sums {
    double offsets, pairs;
    int64_t n_offsets, n_pairs;
} layer_sums;

struct eval_attn_error {
    const eval_cache *cache;
    kern_ctx *ctx;
    int32_t n_heads, n_kv_heads, head_dim, n_layers;
    int32_t max_context;
    bool has_table;
    float *errors;   /* [L][Hkv][max_context][D] */
    float *products; /* [BLOCK][max(max_context, EVAL_OFFSETS)] */
    float *turned;   /* [BLOCK][D]  per RoPE pair: q . e, then q . J e */
    float *table;    /* [EVAL_OFFSETS][D]  cosines, then sines */
    float *values;   /* [BLOCK][D] */
    float *keys;     /* [BLOCK][Hkv][D] as read back */
    uint16_t *rows;  /* of one open block */
    uint8_t *page;   /* [cache->format->page_bytes] */
    layer_sums *sums;
    base_alloc mem;
};

/* n elements of n_bytes each; NULL on overflow too. */
static void *take(const base_alloc *mem, int64_t n, size_t n_bytes)
{
    size_t total;
    return base_checked_mul((size_t)n, n_bytes, &total) ? mem->get(mem->ctx, total) : NULL;
}

base_status eval_attn_error_create(const model_config *config, const eval_cache *cache,
                                   kern_ctx *ctx, int32_t max_context, const base_alloc *mem,
                                   eval_attn_error **error_out)
{
    base_status st = BASE_OK;
    const int32_t d = config->head_dim;
    const int64_t kv_width = (int64_t)config->n_kv_heads * d;
    const int32_t widest = max_context < EVAL_OFFSETS ? EVAL_OFFSETS : max_context;
    eval_attn_error *e = mem->get(mem->ctx, sizeof *e);
    if (e == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "attention errors");
        goto out;
    }
    e->mem = *mem;
    e->cache = cache;
    e->ctx = ctx;
    e->n_heads = config->n_heads;
    e->n_kv_heads = config->n_kv_heads;
    e->head_dim = d;
    e->n_layers = config->n_layers;
    e->max_context = max_context;
    e->errors = take(mem, kv_width * config->n_layers * max_context, sizeof(float));
    e->products = take(mem, (int64_t)BLOCK * widest, sizeof(float));
    e->turned = take(mem, BLOCK * d, sizeof(float));
    e->table = take(mem, EVAL_OFFSETS * d, sizeof(float));
    e->values = take(mem, BLOCK * d, sizeof(float));
    e->keys = take(mem, BLOCK * kv_width, sizeof(float));
    e->rows = take(mem, kern_open_elems(config->n_kv_heads, d), sizeof(uint16_t));
    e->page = take(mem, cache->format->page_bytes, 1);
    e->sums = take(mem, config->n_layers, sizeof *e->sums);
    if (e->errors == NULL || e->products == NULL || e->turned == NULL || e->table == NULL ||
        e->values == NULL || e->keys == NULL || e->rows == NULL || e->page == NULL ||
        e->sums == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "attention errors of %d layers over %d positions",
                       config->n_layers, max_context);
        goto out;
    }
    *error_out = e;
    e = NULL;
out:
    eval_attn_error_destroy(e);
    return st;
}

void eval_attn_error_destroy(eval_attn_error *e)
{
    if (e == NULL) {
        return;
    }
    const base_alloc mem = e->mem;
    void *const owned[] = {e->errors, e->products, e->turned, e->table, e->values,
                           e->keys,   e->rows,     e->page,   e->sums,  e};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        mem.put(mem.ctx, owned[i]);
    }
}

static void table_make(eval_attn_error *e, const float *inv_freq)
{
    const int32_t half = e->head_dim / 2;
    for (int32_t j = 0; j < EVAL_OFFSETS; j++) {
        const double offset = EVAL_MAX_OFFSET * (2.0 * j / (EVAL_OFFSETS - 1) - 1.0);
        float *row = e->table + (int64_t)j * e->head_dim;
        for (int32_t i = 0; i < half; i++) {
            row[i] = (float)cos(offset * (double)inv_freq[i]);
            row[half + i] = (float)sin(offset * (double)inv_freq[i]);
        }
    }
    e->has_table = true;
}

static float *errors_of(const eval_attn_error *e, int32_t layer, int32_t kv_head)
{
    return e->errors + ((int64_t)layer * e->n_kv_heads + kv_head) * e->max_context * e->head_dim;
}

/* One full block through a page and back; its errors go to their place.  k, v [BLOCK, Hkv, D]. */
static base_status quantise(eval_attn_error *e, int32_t layer, const float *k, const float *v,
                            int64_t position)
{
    static const int32_t dest[BLOCK]; /* all 0: the one open block */
    const int32_t d = e->head_dim;
    const int32_t hkv = e->n_kv_heads;
    const kern_head_format *formats = kv_format_layer(e->cache->format, layer);
    const kern_open open = {.block = 0, .rows = e->rows};
    const kern_pack pack = {.open = 0, .page = 0};
    int64_t positions[BLOCK];
    base_status st = BASE_OK;
    for (int32_t t = 0; t < BLOCK; t++) {
        positions[t] = t;
    }
    const kern_append_args append = {.k = k,
                                     .v = v,
                                     .positions = positions,
                                     .dest = dest,
                                     .opens = &open,
                                     .formats = formats,
                                     .n_tokens = BLOCK,
                                     .n_kv_heads = hkv,
                                     .head_dim = d,
                                     .n_opens = 1};
    const kern_pack_args packs = {.packs = &pack,
                                  .opens = &open,
                                  .formats = formats,
                                  .pages = e->page,
                                  .page_stride = e->cache->format->page_bytes,
                                  .n_packs = 1,
                                  .n_opens = 1,
                                  .n_pages = 1,
                                  .n_kv_heads = hkv};
    const kern_basis_args back = {.x = e->keys,
                                  .formats = formats,
                                  .n_tokens = BLOCK,
                                  .n_heads = hkv,
                                  .n_kv_heads = hkv,
                                  .head_dim = d,
                                  .inverse = true};
    BASE_TRY(st, out, kern_append(e->ctx, &append));
    BASE_TRY(st, out, kern_pack_pages(e->ctx, &packs));
    for (int32_t h = 0; h < hkv; h++) {
        kern_page_decode(&formats[h], e->page + formats[h].offset, 0, e->values);
        for (int64_t t = 0; t < BLOCK; t++) {
            memcpy(e->keys + (t * hkv + h) * d, e->values + t * d, (size_t)d * sizeof(float));
        }
    }
    BASE_TRY(st, out, kern_basis(e->ctx, &back));
    for (int32_t i = 0; e->cache->groups != NULL && i < BLOCK * hkv; i++) {
        eval_free_groups_apply(e->cache->groups, layer, i % hkv, e->keys + (int64_t)i * d);
    }
    for (int32_t h = 0; h < hkv; h++) {
        float *errors = errors_of(e, layer, h) + position * d;
        for (int64_t t = 0; t < BLOCK; t++) {
            const int64_t from = (t * hkv + h) * d;
            for (int32_t i = 0; i < d; i++) {
                errors[t * d + i] = e->keys[from + i] - k[from + i];
            }
        }
    }
out:
    return st;
}

/* *sum += sum |x w^T|, x [m, D] with stride, w [n, D] */
static base_status add_products(eval_attn_error *e, const float *x, int32_t x_stride,
                                const float *w, int32_t m, int32_t n, double *sum)
{
    const kern_gemm_args args = {.x = x,
                                 .w = w,
                                 .y = e->products,
                                 .m = m,
                                 .n = n,
                                 .k = e->head_dim,
                                 .x_stride = x_stride,
                                 .y_stride = n,
                                 .dtype = BASE_F32};
    const base_status st = kern_gemm(e->ctx, &args);
    for (int64_t i = 0; st == BASE_OK && i < (int64_t)m * n; i++) {
        *sum += fabs((double)e->products[i]);
    }
    return st;
}

/* q R_d e = sum over pairs of cos(d f) (q . e) + sin(d f) (q_2 e_1 - q_1 e_2) */
static base_status add_offsets(eval_attn_error *e, const float *q, const float *errors,
                               layer_sums *sums)
{
    const int32_t half = e->head_dim / 2;
    for (int64_t t = 0; t < BLOCK; t++) {
        const float *q1 = q + t * e->n_heads * e->head_dim;
        const float *e1 = errors + t * e->head_dim;
        float *turned = e->turned + t * e->head_dim;
        for (int32_t i = 0; i < half; i++) {
            turned[i] = q1[i] * e1[i] + q1[half + i] * e1[half + i];
            turned[half + i] = q1[half + i] * e1[i] - q1[i] * e1[half + i];
        }
    }
    sums->n_offsets += (int64_t)BLOCK * EVAL_OFFSETS;
    return add_products(e, e->turned, e->head_dim, e->table, BLOCK, EVAL_OFFSETS, &sums->offsets);
}

/* Queries [n_rows] of one block that begins at position. */
static base_status see_block(eval_attn_error *e, const forward_observation *seen, int32_t first,
                             int32_t n_rows)
{
    base_status st = BASE_OK;
    const int32_t d = e->head_dim;
    const int32_t group = e->n_heads / e->n_kv_heads;
    const int64_t position = seen->positions[first];
    const int64_t kv_at = (int64_t)first * e->n_kv_heads * d;
    layer_sums *sums = &e->sums[seen->layer];

    if (n_rows == BLOCK) {
        BASE_TRY(st, out, quantise(e, seen->layer, seen->k + kv_at, seen->v + kv_at, position));
    }
    for (int32_t h = 0; h < e->n_heads; h++) {
        const float *q = seen->q + ((int64_t)first * e->n_heads + h) * d;
        const float *errors = errors_of(e, seen->layer, h / group);
        if (n_rows == BLOCK) {
            BASE_TRY(st, out, add_offsets(e, q, errors + position * d, sums));
        }
        if (position > 0) {
            BASE_TRY(st, out,
                     add_products(e, q, e->n_heads * d, errors, n_rows, (int32_t)position,
                                  &sums->pairs));
            sums->n_pairs += n_rows * position;
        }
    }
out:
    return st;
}

base_status eval_attn_error_see(void *ctx, const forward_observation *seen)
{
    eval_attn_error *e = ctx;
    base_status st = BASE_OK;
    const int64_t begin = seen->n_tokens > 0 ? seen->positions[0] : 0;
    if (begin % BLOCK != 0 || begin + seen->n_tokens > e->max_context) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "step of %d tokens at position %lld: not at a whole block, or past %d",
                         seen->n_tokens, (long long)begin, e->max_context);
    }
    if (!e->has_table) {
        table_make(e, seen->inv_freq);
    }
    for (int32_t at = 0; at < seen->n_tokens && st == BASE_OK; at += BLOCK) {
        const int32_t n_left = seen->n_tokens - at;
        st = see_block(e, seen, at, n_left < BLOCK ? n_left : BLOCK);
    }
    return st;
}

eval_attn_mae eval_attn_error_layer(const eval_attn_error *e, int32_t layer)
{
    const layer_sums *s = &e->sums[layer];
    const eval_attn_mae mae = {
        .offsets = s->n_offsets > 0 ? s->offsets / (double)s->n_offsets : (double)NAN,
        .pairs = s->n_pairs > 0 ? s->pairs / (double)s->n_pairs : (double)NAN,
    };
    return mae;
}
