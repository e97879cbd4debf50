#include "worker/model/energy.h"

#include "kvshard/shard.h"
#include "worker/model/forward.h"

#include <math.h>

#define CHUNK      512
#define TIMEOUT_MS 60000 /* of an exchange with nobody */

typedef struct energy_sums {
    const model_config *config;
    double *q; /* [L][Hkv][D / 2], over tokens and the group's query heads */
    double *k;
} energy_sums;

/* Adds |x_i|^2 of each block i of a row. */
static void add_row(double *sums, const float *x, int32_t n_blocks)
{
    for (int32_t i = 0; i < n_blocks; i++) {
        const double a = (double)x[i];
        const double b = (double)x[i + n_blocks];
        sums[i] += a * a + b * b;
    }
}

static base_status observe(void *ctx, const forward_observation *seen)
{
    const energy_sums *s = ctx;
    const model_config *c = s->config;
    const int32_t group = c->n_heads / c->n_kv_heads;
    const int32_t n_blocks = c->head_dim / 2;

    for (int64_t t = 0; t < seen->n_tokens; t++) {
        for (int64_t h = 0; h < c->n_heads; h++) {
            double *sums = s->q + ((int64_t)seen->layer * c->n_kv_heads + h / group) * n_blocks;
            add_row(sums, seen->q + (t * c->n_heads + h) * c->head_dim, n_blocks);
        }
        for (int64_t h = 0; h < c->n_kv_heads; h++) {
            double *sums = s->k + ((int64_t)seen->layer * c->n_kv_heads + h) * n_blocks;
            add_row(sums, seen->k + (t * c->n_kv_heads + h) * c->head_dim, n_blocks);
        }
    }
    return BASE_OK;
}

static base_status fill(const energy_sums *s, kv_calibration *c, const char *name)
{
    const double n_k = (double)c->n_tokens;
    const double n_q = n_k * (s->config->n_heads / s->config->n_kv_heads);
    const int64_t n = (int64_t)c->shape.n_layers * c->shape.n_kv_heads * (c->shape.head_dim / 2);
    for (int64_t i = 0; i < n; i++) {
        c->scores[i] = (float)(0.5 * (s->q[i] / n_q + s->k[i] / n_k));
        if (!isfinite(c->scores[i])) {
            return BASE_FAIL(BASE_BAD_FILE, "model %s: the energy of block %lld is %g", name,
                             (long long)i, (double)c->scores[i]);
        }
    }
    return BASE_OK;
}

static base_status run(const model *m, forward *f, kv_shard *shard, const int32_t *ids,
                       int32_t n_ids, energy_progress progress, void *progress_ctx)
{
    for (int32_t at = 0; at < n_ids; at += CHUNK) {
        const int32_t n = n_ids - at < CHUNK ? n_ids - at : CHUNK;
        const kv_step_seq seq = {.slot = 0, .n_tokens = n, .position = at};
        const kv_step *step = NULL;
        for (int32_t i = 0; i < n; i++) {
            if (ids[at + i] < 0 || ids[at + i] >= m->config.n_vocab) {
                return BASE_FAIL(BASE_BAD_INPUT, "token id %d, allowed 0..%d", ids[at + i],
                                 m->config.n_vocab - 1);
            }
        }
        for (int32_t b = at / KERN_BLOCK_TOKENS; b * KERN_BLOCK_TOKENS < at + n; b++) {
            const base_status st = kv_shard_add_page(shard, 0, b, b);
            if (st != BASE_OK) {
                return st;
            }
        }
        base_status st = kv_shard_begin_step(shard, &seq, 1, &step);
        if (st == BASE_OK) {
            st = forward_step(f, shard, step, ids + at, NULL, 0, NULL);
        }
        if (st != BASE_OK) {
            return st;
        }
        if (progress != NULL) {
            progress(progress_ctx, at + n, n_ids);
        }
    }
    return BASE_OK;
}

base_status energy_measure(const model *m, const int32_t *ids, int32_t n_ids, int32_t n_threads,
                           energy_progress progress, void *progress_ctx, const base_alloc *mem,
                           kv_calibration **calibration_out)
{
    const model_config *c = &m->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    const kv_policy policy = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16};
    const size_t n_sums = (size_t)c->n_layers * (size_t)c->n_kv_heads * (size_t)c->head_dim / 2;
    base_status st = BASE_OK;
    energy_sums sums = {.config = c};
    kv_calibration *made = NULL;
    kv_format *format = NULL;
    kern_ctx *ctx = NULL;
    comm *self = NULL;
    kv_shard *shard = NULL;
    forward *f = NULL;

    if (n_ids < 1 || n_ids > ENERGY_MAX_TOKENS || n_ids > c->max_context) {
        return BASE_FAIL(
            BASE_BAD_INPUT, "calibration over %d tokens, allowed 1..%lld", n_ids,
            (long long)(c->max_context < ENERGY_MAX_TOKENS ? c->max_context : ENERGY_MAX_TOKENS));
    }
    sums.q = mem->get(mem->ctx, n_sums * sizeof *sums.q);
    sums.k = mem->get(mem->ctx, n_sums * sizeof *sums.k);
    if (sums.q == NULL || sums.k == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "energies of %zu RoPE blocks", n_sums);
        goto out;
    }
    const int32_t n_pages = (n_ids + KERN_BLOCK_TOKENS - 1) / KERN_BLOCK_TOKENS;
    const kv_shard_options options = {
        .n_pages = n_pages, .n_slots = 1, .max_step_tokens = CHUNK, .max_blocks_per_slot = n_pages};
    const forward_limits limits = {CHUNK, 1, TIMEOUT_MS};
    BASE_TRY(st, out, kv_calibration_create(&shape, m->hash, n_ids, mem, &made));
    BASE_TRY(st, out, kv_format_create(&policy, &shape, mem, &format));
    BASE_TRY(st, out, kern_ctx_create_cpu(n_threads, mem, &ctx));
    BASE_TRY(st, out, comm_self_create(mem, &self));
    BASE_TRY(st, out, kv_shard_create(format, &options, mem, &shard));
    BASE_TRY(st, out, forward_create(m, format, ctx, self, &limits, mem, &f));
    forward_set_observer(f, observe, &sums);
    BASE_TRY(st, out, run(m, f, shard, ids, n_ids, progress, progress_ctx));
    BASE_TRY(st, out, fill(&sums, made, m->name));
    *calibration_out = made;
    made = NULL;

out:
    forward_destroy(f);
    kv_shard_destroy(shard);
    comm_destroy(self);
    kern_ctx_destroy(ctx);
    kv_format_destroy(format);
    kv_calibration_destroy(made);
    mem->put(mem->ctx, sums.k);
    mem->put(mem->ctx, sums.q);
    return st;
}
