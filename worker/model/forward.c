#include "worker/model/forward.h"

#include "worker/model/arch.h"
#include "worker/model/resident.h"
#include "worker/model/scratch.h"

#include <string.h>

#define MAX_SAMPLES (1 << 20)

struct forward {
    const model *model;
    const kv_format *format;
    kern_ctx *ctx;
    comm *ranks;
    forward_limits limits;
    forward_observer observer; /* or NULL */
    void *observer_ctx;
    scratch scratch;
    int32_t *ids; /* a mirror: [max_step_tokens] of a step, then sample rows [max_samples] */
    bool weights_bound;
    bool formats_bound;
    base_alloc mem;
};

static size_t ids_bytes(const forward_limits *limits)
{
    return ((size_t)limits->max_step_tokens + (size_t)limits->max_samples) * sizeof(int32_t);
}

static scratch_limits scratch_limits_of(const forward_limits *limits, int32_t n_ranks)
{
    const scratch_limits l = {
        .n_tokens = limits->max_step_tokens,
        .n_samples = limits->max_samples,
        .n_ranks = n_ranks,
    };
    return l;
}

static base_status limits_check(const model *m, const kv_format *format,
                                const forward_limits *limits)
{
    if (limits->max_step_tokens < 1 || limits->max_step_tokens > SCRATCH_MAX_TOKENS) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_step_tokens %d, allowed 1..%d",
                         limits->max_step_tokens, SCRATCH_MAX_TOKENS);
    }
    if (limits->max_samples < 1 || limits->max_samples > MAX_SAMPLES) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_samples %d, allowed 1..%d", limits->max_samples,
                         MAX_SAMPLES);
    }
    if (limits->timeout_ms < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "timeout_ms %lld, at least 1",
                         (long long)limits->timeout_ms);
    }
    const kv_shape *s = &format->shape;
    const model_config *c = &m->config;
    if (s->n_layers != c->n_layers || s->n_kv_heads != c->n_kv_heads ||
        s->head_dim != c->head_dim) {
        return BASE_FAIL(
            BASE_BAD_INPUT, "cache of %d layers, %d KV heads of %d; the model has %d, %d of %d",
            s->n_layers, s->n_kv_heads, s->head_dim, c->n_layers, c->n_kv_heads, c->head_dim);
    }
    return BASE_OK;
}

base_status forward_create(const model *m, const kv_format *format, kern_ctx *ctx, comm *ranks,
                           const forward_limits *limits, const base_alloc *mem,
                           forward **forward_out)
{
    base_status st = BASE_OK;
    forward *f = NULL;

    BASE_TRY(st, out, limits_check(m, format, limits));
    f = mem->get(mem->ctx, sizeof *f);
    if (f == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "forward");
        goto out;
    }
    f->mem = *mem;
    f->model = m;
    f->format = format;
    f->ctx = ctx;
    f->ranks = ranks;
    f->limits = *limits;
    const scratch_limits sizes = scratch_limits_of(limits, comm_size(ranks));
    BASE_TRY(st, out, scratch_init(&f->scratch, &m->config, &sizes, ctx));
    f->ids = kern_mirror(ctx)->get(kern_mirror(ctx)->ctx, ids_bytes(limits));
    if (f->ids == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "ids of %d tokens", limits->max_step_tokens);
        goto out;
    }
    BASE_TRY(st, out, resident_bind(ctx, m));
    f->weights_bound = true;
    BASE_TRY(
        st, out,
        kern_bind_formats(ctx, format->heads, format->shape.n_layers, format->shape.n_kv_heads));
    f->formats_bound = true;
    *forward_out = f;
    f = NULL;

out:
    forward_destroy(f);
    return st;
}

void forward_destroy(forward *f)
{
    if (f == NULL) {
        return;
    }
    const base_alloc mem = f->mem;
    if (f->formats_bound) {
        kern_unbind(f->ctx, f->format->heads);
    }
    if (f->weights_bound) {
        resident_unbind(f->ctx, f->model);
    }
    kern_mirror(f->ctx)->put(kern_mirror(f->ctx)->ctx, f->ids);
    scratch_reset(&f->scratch);
    mem.put(mem.ctx, f);
}

void forward_set_timeout(forward *f, int64_t timeout_ms)
{
    f->limits.timeout_ms = timeout_ms;
}

void forward_set_observer(forward *f, forward_observer observer, void *ctx)
{
    f->observer = observer;
    f->observer_ctx = ctx;
}

int64_t forward_scratch_bytes(const model_config *config, const forward_limits *limits,
                              int32_t n_ranks)
{
    const scratch_limits sizes = scratch_limits_of(limits, n_ranks);
    const int64_t n_bytes = scratch_bytes(config, &sizes);
    const int64_t own_bytes = (int64_t)(sizeof(forward) + ids_bytes(limits));
    return n_bytes > INT64_MAX - own_bytes ? INT64_MAX : n_bytes + own_bytes;
}

static base_status step_check(const forward *f, const kv_step *step, const int32_t *sample_rows,
                              int32_t n_samples)
{
    if (step->n_tokens < 0 || step->n_tokens > f->limits.max_step_tokens) {
        return BASE_FAIL(BASE_BAD_INPUT, "step of %d tokens, limit %d", step->n_tokens,
                         f->limits.max_step_tokens);
    }
    if (n_samples < 0 || n_samples > f->limits.max_samples) {
        return BASE_FAIL(BASE_BAD_INPUT, "%d sample rows, limit %d", n_samples,
                         f->limits.max_samples);
    }
    for (int32_t i = 0; i < n_samples; i++) {
        if (sample_rows[i] < 0 || sample_rows[i] >= step->n_tokens) {
            return BASE_FAIL(BASE_BAD_INPUT, "sample row %d in a step of %d tokens", sample_rows[i],
                             step->n_tokens);
        }
    }
    return BASE_OK;
}

/* Ids and sample rows come to where ops read them. */
static base_status take_ids(const forward *f, const int32_t *ids, int32_t n_tokens,
                            const int32_t *sample_rows, int32_t n_samples)
{
    const size_t n_bytes = ((size_t)n_tokens + (size_t)n_samples) * sizeof *ids;
    memcpy(f->ids, ids, (size_t)n_tokens * sizeof *ids);
    if (n_samples > 0) {
        memcpy(f->ids + n_tokens, sample_rows, (size_t)n_samples * sizeof *sample_rows);
    }
    return kern_send(f->ctx, f->ids, n_bytes);
}

static base_status embed(const forward *f, int32_t n_tokens)
{
    const model_config *c = &f->model->config;
    const kern_embed_args args = {
        .ids = f->ids,
        .table = f->model->embedding.data,
        .y = f->scratch.x,
        .n_tokens = n_tokens,
        .n_vocab = c->n_vocab,
        .width = c->width,
        .dtype = f->model->embedding.dtype,
    };
    return kern_embed(f->ctx, &args);
}

/* The turns of the step's tokens, for all layers. */
static base_status turns(const forward *f, const kv_step *step)
{
    const kern_turns_args args = {
        .positions = step->positions,
        .inv_freq = f->scratch.inv_freq,
        .turns = f->scratch.turns,
        .n_tokens = step->n_tokens,
        .head_dim = f->model->config.head_dim,
    };
    return kern_turns(f->ctx, &args);
}

/* Final norm and head, only for the rows of x that are asked for, looked up as embeddings are. */
static base_status head(const forward *f, int32_t n_tokens, int32_t n_samples, float *logits_out)
{
    base_status st = BASE_OK;
    const model_config *c = &f->model->config;
    const scratch *s = &f->scratch;
    const kern_embed_args rows = {
        .ids = f->ids + n_tokens,
        .table = s->x,
        .y = s->sample,
        .n_tokens = n_samples,
        .n_vocab = n_tokens,
        .width = c->width,
        .dtype = BASE_F32,
    };
    const kern_project_args logits = {
        .x = s->sample,
        .norm = f->model->final_norm.data,
        .h = s->sample,
        .parts = {{.w = f->model->head.data,
                   .y = logits_out,
                   .n = c->n_vocab,
                   .dtype = f->model->head.dtype}},
        .n_parts = 1,
        .m = n_samples,
        .k = c->width,
        .eps = c->rms_eps,
        .norm_dtype = f->model->final_norm.dtype,
    };
    BASE_TRY(st, out, kern_embed(f->ctx, &rows));
    st = kern_project(f->ctx, &logits);
out:
    return st;
}

/* All ops of a step. */
static base_status run_ops(const forward *f, const kv_shard *shard, const kv_step *step,
                           int32_t n_samples, float *logits_out)
{
    base_status st = BASE_OK;
    const block_step b = {
        .ctx = f->ctx,
        .ranks = f->ranks,
        .timeout_ms = f->limits.timeout_ms,
        .config = &f->model->config,
        .step = step,
        .scratch = &f->scratch,
        .observer = f->observer,
        .observer_ctx = f->observer_ctx,
    };
    const arch *a = arch_of(f->model->config.arch);

    BASE_TRY(st, out, embed(f, step->n_tokens));
    BASE_TRY(st, out, turns(f, step));
    for (int32_t i = 0; i < f->model->config.n_layers; i++) {
        const block_layer layer = {
            .index = i,
            .weights = &f->model->layers[i],
            .formats = kv_format_layer(f->format, i),
            .opens = kv_shard_layer_opens(shard, i),
        };
        BASE_TRY(st, out, a->run_layer(&b, &layer));
    }
    if (n_samples > 0) {
        st = head(f, step->n_tokens, n_samples, logits_out);
    }
out:
    return st;
}

/* A step in which every sequence decodes: its ops' args depend on these numbers alone, and most steps have those
 * of a step before. */
static base_status run_again(const forward *f, const kv_shard *shard, const kv_step *step,
                             int32_t n_samples, float *logits_out)
{
    base_status st = BASE_OK;
    bool done = false;
    const kern_replay_key key = {
        .owner = f,
        .words = {step->n_tokens, step->n_opens, step->n_packs, n_samples,
                  (int64_t)(intptr_t)step->positions, (int64_t)(intptr_t)logits_out},
    };
    BASE_TRY(st, out, kern_replay(f->ctx, &key, &done));
    if (!done) {
        BASE_TRY(st, out, kern_record_begin(f->ctx));
        st = kern_record_end(f->ctx, &key, run_ops(f, shard, step, n_samples, logits_out));
    }
out:
    return st;
}

base_status forward_step(forward *f, kv_shard *shard, const kv_step *step, const int32_t *ids,
                         const int32_t *sample_rows, int32_t n_samples, float *logits_out)
{
    base_status st = BASE_OK;
    const int32_t n_logits = logits_out == NULL ? 0 : n_samples;
    const bool decodes = step->n_tokens == step->n_seqs && f->observer == NULL;

    BASE_TRY(st, out, step_check(f, step, sample_rows, n_samples));
    if (step->n_tokens == 0) {
        goto out;
    }
    BASE_TRY(st, out, take_ids(f, ids, step->n_tokens, sample_rows, n_samples));
    BASE_TRY(st, out, (decodes ? run_again : run_ops)(f, shard, step, n_logits, logits_out));
    if (n_logits > 0) {
        st = kern_fetch(f->ctx, logits_out,
                        (size_t)n_logits * (size_t)f->model->config.n_vocab * sizeof *logits_out);
    }
out:
    return st;
}
