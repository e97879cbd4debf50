#include "worker/eval/energy.h"

#include "worker/eval/run.h"

#include <math.h>

#define CHUNK 512

typedef struct energy_sums {
    const model_config *config;
    double *q; /* [L][Hkv][D / 2], over tokens and the group's query heads */
    double *k;
    eval_energy_progress progress; /* or NULL */
    void *progress_ctx;
    int64_t n_done, n_total; /* token and layer pairs */
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

static void report(const energy_sums *s)
{
    if (s->progress != NULL) {
        s->progress(s->progress_ctx, s->n_done, s->n_total);
    }
}

static base_status observe(void *ctx, const forward_observation *seen)
{
    energy_sums *s = ctx;
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
    report(s); /* most of this layer is still to come */
    s->n_done += seen->n_tokens;
    return BASE_OK;
}

static base_status check(const model_config *c, int32_t n_ids)
{
    const int64_t limit =
        c->max_context < EVAL_ENERGY_MAX_TOKENS ? c->max_context : EVAL_ENERGY_MAX_TOKENS;
    if (n_ids < 1 || n_ids > limit) {
        return BASE_FAIL(BASE_BAD_INPUT, "calibration over %d tokens, allowed 1..%lld", n_ids,
                         (long long)limit);
    }
    return BASE_OK;
}

static base_status fill(const energy_sums *s, kv_calibration *c, const char *name)
{
    const double n_k = (double)c->n_tokens;
    const double n_q = n_k * (s->config->n_heads / s->config->n_kv_heads);
    const int64_t n_blocks = c->shape.head_dim / 2;
    const int64_t n = kv_calibration_count(&c->shape);
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = i / (2 * n_blocks) * n_blocks + i % n_blocks;
        c->energies[i] = (float)(i / n_blocks % 2 == 0 ? s->q[at] / n_q : s->k[at] / n_k);
        if (!isfinite(c->energies[i])) {
            return BASE_FAIL(BASE_BAD_FILE, "model %s: the energy of block %lld is %g", name,
                             (long long)at, (double)c->energies[i]);
        }
    }
    return BASE_OK;
}

base_status eval_energy_measure(const model *m, const int32_t *ids, int32_t n_ids,
                                int32_t n_threads, eval_energy_progress progress,
                                void *progress_ctx, const base_alloc *mem,
                                kv_calibration **calibration_out)
{
    const model_config *c = &m->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    const kv_policy policy = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16};
    const size_t n_sums = (size_t)c->n_layers * (size_t)c->n_kv_heads * (size_t)c->head_dim / 2;
    const eval_run_options options = {
        .max_step_tokens = CHUNK, .max_samples = 1, .max_context = n_ids, .n_slots = 1};
    energy_sums sums = {.config = c,
                        .progress = progress,
                        .progress_ctx = progress_ctx,
                        .n_total = (int64_t)n_ids * c->n_layers};
    base_status st = BASE_OK;
    kv_calibration *made = NULL;
    kern_ctx *ctx = NULL;
    comm *self = NULL;
    eval_run *run = NULL;

    BASE_TRY(st, out, check(c, n_ids));
    sums.q = mem->get(mem->ctx, n_sums * sizeof *sums.q);
    sums.k = mem->get(mem->ctx, n_sums * sizeof *sums.k);
    if (sums.q == NULL || sums.k == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "energies of %zu RoPE blocks", n_sums);
        goto out;
    }
    BASE_TRY(st, out, kv_calibration_create(&shape, m->hash, n_ids, mem, &made));
    BASE_TRY(st, out, kern_ctx_create_cpu(n_threads, mem, &ctx));
    BASE_TRY(st, out, comm_self_create(mem, &self));
    BASE_TRY(st, out, eval_run_create(m, &policy, ctx, self, &options, mem, &run));
    forward_set_observer(run->forward, observe, &sums);
    BASE_TRY(st, out, eval_run_feed(run, ids, n_ids, CHUNK, NULL));
    report(&sums);
    BASE_TRY(st, out, fill(&sums, made, m->name));
    *calibration_out = made;
    made = NULL;

out:
    eval_run_destroy(run);
    comm_destroy(self);
    kern_ctx_destroy(ctx);
    kv_calibration_destroy(made);
    mem->put(mem->ctx, sums.k);
    mem->put(mem->ctx, sums.q);
    return st;
}
