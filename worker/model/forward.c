#include "worker/model/forward.h"

#include "worker/model/arch.h"
#include "worker/model/head.h"
#include "worker/model/resident.h"
#include "worker/model/sampling.h"
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
    sampling sampling;
    char *
        input; /* a mirror: of a step how tokens are made [n_picks], ids [n_tokens], sample rows, then, where ranks share
                    the weights, which pieces of logits make the rows */
    bool weights_bound;
    bool formats_bound;
    base_alloc mem;
};

static size_t input_bytes(const model_config *config, const model_split *split,
                          const forward_limits *limits)
{
    const size_t n_rows = (size_t)limits->max_samples;
    const size_t n_pieces = (size_t)head_pieces(config, split);
    return (limits->n_slots > 0 ? n_rows * sizeof(kern_sample_row) : 0) +
           ((size_t)limits->max_step_tokens + n_rows * (1 + n_pieces)) * sizeof(int32_t);
}

static sampling_limits sampling_limits_of(const model_config *config, const forward_limits *limits)
{
    const sampling_limits l = {
        .n_slots = limits->n_slots,
        .n_rows = limits->max_samples,
        .n_vocab = config->n_vocab,
    };
    return l;
}

static scratch_limits scratch_limits_of(const forward_limits *limits, const model_split *split,
                                        int32_t n_ranks)
{
    const scratch_limits l = {
        .n_tokens = limits->max_step_tokens,
        .n_samples = limits->max_samples,
        .n_ranks = n_ranks,
        .split = split,
    };
    return l;
}

static base_status limits_check(const model *m, const kv_format *format,
                                const forward_limits *limits, int32_t n_ranks)
{
    const int32_t longest = model_rows_longest(&m->config, &m->split, n_ranks);
    if (limits->max_step_tokens < 1 || limits->max_step_tokens > longest) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_step_tokens %d, allowed 1..%d on %d ranks",
                         limits->max_step_tokens, longest, n_ranks);
    }
    if (limits->max_samples < 1 || limits->max_samples > MAX_SAMPLES) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_samples %d, allowed 1..%d", limits->max_samples,
                         MAX_SAMPLES);
    }
    if (limits->n_slots < 0 || limits->n_slots > MAX_SAMPLES) {
        return BASE_FAIL(BASE_BAD_INPUT, "n_slots %d, allowed 0..%d", limits->n_slots, MAX_SAMPLES);
    }
    if (limits->n_slots > 0 && m->config.n_vocab > KERN_SAMPLE_MAX_VOCAB) {
        return BASE_FAIL(BASE_BAD_INPUT, "tokens of a vocabulary of %d, allowed %d",
                         m->config.n_vocab, KERN_SAMPLE_MAX_VOCAB);
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

static base_status split_check(const model_split *split, const comm *ranks)
{
    if (model_is_split(split) &&
        (split->n_ranks != comm_size(ranks) || split->rank != comm_rank(ranks))) {
        return BASE_FAIL(BASE_BAD_INPUT, "weights of rank %d of %d on rank %d of %d", split->rank,
                         split->n_ranks, comm_rank(ranks), comm_size(ranks));
    }
    return BASE_OK;
}

base_status forward_create(const model *m, const kv_format *format, kern_ctx *ctx, comm *ranks,
                           const forward_limits *limits, const base_alloc *mem,
                           forward **forward_out)
{
    base_status st = BASE_OK;
    forward *f = NULL;

    BASE_TRY(st, out, limits_check(m, format, limits, comm_size(ranks)));
    BASE_TRY(st, out, split_check(&m->split, ranks));
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
    const scratch_limits sizes = scratch_limits_of(limits, &m->split, comm_size(ranks));
    const sampling_limits tokens = sampling_limits_of(&m->config, limits);
    BASE_TRY(st, out, scratch_init(&f->scratch, &m->config, &sizes, ctx, ranks));
    BASE_TRY(st, out, sampling_init(&f->sampling, &tokens, ctx, mem));
    f->input =
        kern_mirror(ctx)->get(kern_mirror(ctx)->ctx, input_bytes(&m->config, &m->split, limits));
    if (f->input == NULL) {
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
    kern_mirror(f->ctx)->put(kern_mirror(f->ctx)->ctx, f->input);
    sampling_reset(&f->sampling);
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

int64_t forward_scratch_bytes(const model_config *config, const model_split *split,
                              const forward_limits *limits, int32_t n_ranks)
{
    const scratch_limits sizes = scratch_limits_of(limits, split, n_ranks);
    const sampling_limits tokens = sampling_limits_of(config, limits);
    const int64_t n_bytes = scratch_bytes(config, &sizes);
    const int64_t token_bytes = sampling_bytes(&tokens);
    const int64_t own_bytes = (int64_t)(sizeof(forward) + input_bytes(config, split, limits));
    return token_bytes > INT64_MAX - own_bytes || n_bytes > INT64_MAX - own_bytes - token_bytes
               ? INT64_MAX
               : n_bytes + own_bytes + token_bytes;
}

static model_rows rows_of(const forward *f, const kv_step *step)
{
    return model_rows_make(&f->model->split, comm_rank(f->ranks), comm_size(f->ranks),
                           step->n_tokens);
}

/* Whether logits that one rank wants need all ranks: each has a part of the ids, or of the rows. */
static bool all_run_head(const forward *f, const kv_step *step)
{
    const model_rows rows = rows_of(f, step);
    return model_is_split(&f->model->split) || model_rows_are_shared(&rows);
}

/* What the ops of a step are called with; the arrays lie in the forward's input. */
typedef struct call {
    const forward *forward;
    kv_shard *shard;
    const kv_step *step;
    kern_sample_row *how; /* [n_rows]; NULL: no token is made here */
    int32_t *ids;         /* [step->n_tokens] */
    int32_t *rows;        /* [n_rows] tokens whose logits are wanted */
    int32_t *pieces;      /* of the rows (head.h) */
    int32_t n_rows;
    int32_t n_made; /* tokens that rank 0 makes */
    float *logits;  /* [n_rows, V]; NULL: only others want them */
} call;

static base_status step_check(const forward *f, const kv_step *step, int32_t n_rows)
{
    if (step->n_tokens < 0 || step->n_tokens > f->limits.max_step_tokens) {
        return BASE_FAIL(BASE_BAD_INPUT, "step of %d tokens, limit %d", step->n_tokens,
                         f->limits.max_step_tokens);
    }
    if (n_rows < 0 || n_rows > f->limits.max_samples) {
        return BASE_FAIL(BASE_BAD_INPUT, "%d sample rows, limit %d", n_rows, f->limits.max_samples);
    }
    return BASE_OK;
}

static base_status row_check(int32_t row, int32_t n_tokens)
{
    if (row < 0 || row >= n_tokens) {
        return BASE_FAIL(BASE_BAD_INPUT, "sample row %d in a step of %d tokens", row, n_tokens);
    }
    return BASE_OK;
}

/* The step's part of the input, ids in their place. */
static call lay_out(const forward *f, kv_shard *shard, const kv_step *step, const int32_t *ids,
                    int32_t n_how)
{
    call c = {.forward = f, .shard = shard, .step = step};
    c.how = n_how > 0 ? (kern_sample_row *)(void *)f->input : NULL;
    c.ids = (int32_t *)(void *)(f->input + (size_t)n_how * sizeof *c.how);
    c.rows = c.ids + step->n_tokens;
    memcpy(c.ids, ids, (size_t)step->n_tokens * sizeof *ids);
    return c;
}

/* The rows are known. */
static base_status send(const forward *f, call *c)
{
    c->pieces = c->rows + c->n_rows;
    const model *m = f->model;
    const int32_t *end = c->pieces + (int64_t)c->n_rows * head_pieces(&m->config, &m->split);
    head_lay_out(&m->config, &m->split, c->n_rows, c->pieces);
    return kern_send(f->ctx, f->input, (size_t)((const char *)end - f->input));
}

static base_status embed(const forward *f, const block_step *b, const int32_t *ids)
{
    const model_config *c = &f->model->config;
    const model_span own = f->model->split.vocab;
    const kern_embed_args args = {
        .ids = ids + b->rows.begin,
        .table = f->model->embedding.data,
        .y = f->scratch.x,
        .n_tokens = model_rows_count(&b->rows),
        .n_vocab = c->n_vocab,
        .width = c->width,
        .dtype = f->model->embedding.dtype,
        .n_recent = f->limits.n_slots,
        .recent = sampling_last_tokens(&f->sampling),
        .begin = own.begin,
        .end = own.end,
    };
    const base_status st = kern_embed(f->ctx, &args);
    return st == BASE_OK ? block_sum(b) : st;
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

/* Rank 0's tokens become every rank's. */
static base_status make_tokens(const forward *f, const call *c)
{
    base_status st = BASE_OK;
    if (c->how != NULL) {
        BASE_TRY(st, out, sampling_run(&f->sampling, c->how, c->n_rows));
    }
    st = comm_broadcast(f->ranks, sampling_last_tokens(&f->sampling),
                        (size_t)f->limits.n_slots * sizeof(int32_t), 0, f->limits.timeout_ms);
out:
    return st;
}

/* All ops of a step: arg is its call. */
static base_status run_ops(void *arg)
{
    base_status st = BASE_OK;
    const call *c = arg;
    const forward *f = c->forward;
    const kv_step *step = c->step;
    const block_step b = {
        .ctx = f->ctx,
        .ranks = f->ranks,
        .timeout_ms = f->limits.timeout_ms,
        .config = &f->model->config,
        .split = &f->model->split,
        .step = step,
        .rows = rows_of(f, step),
        .scratch = &f->scratch,
        .observer = f->observer,
        .observer_ctx = f->observer_ctx,
    };
    const arch *a = arch_of(f->model->config.arch);

    BASE_TRY(st, out, embed(f, &b, c->ids));
    BASE_TRY(st, out, turns(f, step));
    for (int32_t i = 0; i < f->model->config.n_layers; i++) {
        const block_layer layer = {
            .index = i,
            .weights = &f->model->layers[i],
            .formats = kv_format_layer(f->format, i),
            .opens = kv_shard_layer_opens(c->shard, i),
        };
        BASE_TRY(st, out, a->run_layer(&b, &layer));
    }
    if (c->n_rows > 0) {
        const head_rows rows = {c->rows, c->pieces, c->n_rows, c->logits};
        BASE_TRY(st, out, head_run(&b, f->model, &rows));
    }
    if (c->n_made > 0) {
        st = make_tokens(f, c);
    }
out:
    return st;
}

/* A step in which every sequence decodes: its ops' args depend on these numbers alone, and most steps have those
 * of a step before. */
static base_status run_again(const forward *f, call *c)
{
    const kern_replay_key key = {
        .owner = f,
        .words = {c->step->n_tokens, c->step->n_opens, c->step->n_packs,
                  (int64_t)c->n_rows << 32 | c->n_made, (int64_t)(intptr_t)c->step->positions,
                  (int64_t)(intptr_t)c->logits},
    };
    return kern_replay_or_record(f->ctx, &key, run_ops, c);
}

static base_status run(const forward *f, call *c)
{
    const bool decodes = c->step->n_tokens == c->step->n_seqs && f->observer == NULL;
    return decodes ? run_again(f, c) : run_ops(c);
}

base_status forward_step(forward *f, kv_shard *shard, const kv_step *step, const int32_t *ids,
                         const int32_t *sample_rows, int32_t n_samples, float *logits_out)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, step_check(f, step, n_samples));
    call c = lay_out(f, shard, step, ids, 0);
    for (int32_t i = 0; i < n_samples; i++) {
        BASE_TRY(st, out, row_check(sample_rows[i], step->n_tokens));
        c.rows[i] = sample_rows[i];
    }
    if (step->n_tokens == 0) {
        goto out;
    }
    c.n_rows = logits_out == NULL && !all_run_head(f, step) ? 0 : n_samples;
    c.logits = logits_out;
    BASE_TRY(st, out, send(f, &c));
    BASE_TRY(st, out, run(f, &c));
    if (c.n_rows > 0 && logits_out != NULL) {
        st = kern_fetch(f->ctx, logits_out,
                        (size_t)c.n_rows * (size_t)f->model->config.n_vocab * sizeof *logits_out);
    }
out:
    return st;
}

base_status forward_begin(forward *f, kv_shard *shard, const kv_step *step, const int32_t *ids,
                          const forward_pick *picks, int32_t n_picks)
{
    base_status st = BASE_OK;
    int32_t n_reports = 0;
    const bool makes = comm_rank(f->ranks) == 0;
    const int32_t n_rows = makes || all_run_head(f, step) ? n_picks : 0;
    const int32_t n_how = makes ? n_picks : 0;

    BASE_TRY(st, out, step_check(f, step, n_picks));
    if (step->n_tokens == 0 || n_picks > f->limits.n_slots || f->limits.n_slots == 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "step of %d tokens makes %d for %d slots", step->n_tokens,
                       n_picks, f->limits.n_slots);
        goto out;
    }
    call c = lay_out(f, shard, step, ids, n_how);
    for (int32_t i = 0; i < n_rows; i++) {
        BASE_TRY(st, out, row_check(picks[i].token, step->n_tokens));
        c.rows[i] = picks[i].token;
    }
    for (int32_t i = 0; i < n_how; i++) {
        c.how[i] = picks[i].how;
        n_reports = c.how[i].n_top > 0 ? i + 1 : n_reports;
    }
    c.n_rows = n_rows;
    c.n_made = n_picks;
    c.logits = makes ? f->sampling.logits : NULL;
    BASE_TRY(st, out, sampling_prepare(&f->sampling, picks, n_how));
    BASE_TRY(st, out, send(f, &c));
    BASE_TRY(st, out, run(f, &c));
    st = sampling_begin_fetch(&f->sampling, n_reports);
out:
    return st;
}

base_status forward_end(forward *f, forward_made *made_out)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out, sampling_end_fetch(&f->sampling, made_out));
    st =
        comm_look(f->ranks); /* an exchange that gave up has left the step's numbers as they were */
out:
    return st;
}
