#include "worker/eval/run.h"

#include "worker/eval/logits.h"

static base_status options_check(const eval_run_options *o)
{
    if (o->n_slots < 1 || o->n_slots > EVAL_RUN_MAX_SLOTS) {
        return BASE_FAIL(BASE_BAD_INPUT, "n_slots %d, allowed 1..%d", o->n_slots,
                         EVAL_RUN_MAX_SLOTS);
    }
    if (o->max_context < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_context %d, at least 1", o->max_context);
    }
    return BASE_OK;
}

base_status eval_run_create(const model *m, const kv_policy *policy, kern_ctx *ctx, comm *ranks,
                            const eval_run_options *options, const base_alloc *mem,
                            eval_run **run_out)
{
    base_status st = BASE_OK;
    eval_run *run = NULL;
    const kv_shape shape = {m->config.n_layers, m->config.n_kv_heads, m->config.head_dim};

    BASE_TRY(st, out, options_check(options));
    run = mem->get(mem->ctx, sizeof *run);
    if (run == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "run of a model");
        goto out;
    }
    run->mem = *mem;
    run->model = m;
    run->ctx = ctx;
    run->ranks = ranks;
    run->options = *options;
    run->options.calibration = NULL;
    BASE_TRY(st, out, eval_cache_create(policy, &shape, options->calibration, mem, &run->cache));
    const int32_t max_blocks = (options->max_context - 1) / KERN_BLOCK_TOKENS + 1;
    const kv_shard_options sizes = {
        .n_pages = options->n_slots * ((max_blocks - 1) / comm_size(ranks) + 1),
        .n_slots = options->n_slots,
        .max_step_tokens = options->max_step_tokens,
        .max_blocks_per_slot = max_blocks,
    };
    BASE_TRY(st, out, kv_shard_create(run->cache->format, &sizes, ctx, mem, &run->shard));
    const forward_limits limits = {.max_step_tokens = options->max_step_tokens,
                                   .max_samples = options->max_samples,
                                   .timeout_ms = EVAL_RUN_TIMEOUT_MS};
    BASE_TRY(st, out,
             forward_create(m, run->cache->format, ctx, ranks, &limits, mem, &run->forward));
    *run_out = run;
    run = NULL;

out:
    eval_run_destroy(run);
    return st;
}

void eval_run_destroy(eval_run *run)
{
    if (run == NULL) {
        return;
    }
    const base_alloc mem = run->mem;
    forward_destroy(run->forward);
    kv_shard_destroy(run->shard);
    eval_cache_destroy(run->cache);
    mem.put(mem.ctx, run);
}

void eval_run_clear(eval_run *run)
{
    for (int32_t i = 0; i < run->options.n_slots; i++) {
        kv_shard_clear_slot(run->shard, i);
        run->positions[i] = 0;
    }
    run->next_page = 0;
}

/* Gives this rank's share of the blocks that a sequence begins in a step. */
static base_status add_pages(eval_run *run, const kv_step_seq *seq)
{
    const int64_t first = (seq->position + KERN_BLOCK_TOKENS - 1) / KERN_BLOCK_TOKENS;
    const int64_t last = (seq->position + seq->n_tokens - 1) / KERN_BLOCK_TOKENS;
    base_status st = BASE_OK;
    for (int64_t b = first; b <= last && st == BASE_OK; b++) {
        if (b % comm_size(run->ranks) == comm_rank(run->ranks)) {
            st = kv_shard_add_page(run->shard, seq->slot, (int32_t)b, run->next_page++);
        }
    }
    return st;
}

/* Tokens from a position to the end of its block. */
static int32_t left_of_block(int64_t position)
{
    return KERN_BLOCK_TOKENS - (int32_t)(position % KERN_BLOCK_TOKENS);
}

static base_status seq_check(const eval_run *run, const kv_step_seq *seq)
{
    if (seq->position + seq->n_tokens > run->options.max_context) {
        return BASE_FAIL(BASE_OUT_OF_RANGE, "sequence of %lld tokens, at most %d",
                         (long long)seq->position + seq->n_tokens, run->options.max_context);
    }
    if (run->cache->groups != NULL && seq->n_tokens > left_of_block(seq->position)) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "%d tokens at position %lld: a step of this policy ends with its block",
                         seq->n_tokens, (long long)seq->position);
    }
    return BASE_OK;
}

base_status eval_run_step(eval_run *run, kv_step_seq *seqs, int32_t n_seqs, const int32_t *ids,
                          const int32_t *sample_rows, int32_t n_samples, float *logits_out)
{
    base_status st = BASE_OK;
    const kv_step *step = NULL;
    for (int32_t i = 0; i < n_seqs; i++) {
        if (seqs[i].slot < 0 || seqs[i].slot >= run->options.n_slots) {
            st = BASE_FAIL(BASE_BAD_INPUT, "slot %d, allowed 0..%d", seqs[i].slot,
                           run->options.n_slots - 1);
            goto out;
        }
        seqs[i].position = run->positions[seqs[i].slot];
        BASE_TRY(st, out, seq_check(run, &seqs[i]));
        BASE_TRY(st, out, add_pages(run, &seqs[i]));
    }
    BASE_TRY(st, out, kv_shard_begin_step(run->shard, seqs, n_seqs, &step));
    BASE_TRY(st, out,
             forward_step(run->forward, run->shard, step, ids, sample_rows, n_samples, logits_out));
    for (int32_t i = 0; i < step->n_packs; i++) {
        eval_cache_fill(run->cache, step->pages + step->packs[i].page * step->page_stride);
    }
    for (int32_t i = 0; i < n_seqs; i++) {
        run->positions[seqs[i].slot] += seqs[i].n_tokens;
    }
out:
    return st;
}

base_status eval_run_feed(eval_run *run, const int32_t *ids, int32_t n_tokens, int32_t chunk,
                          float *logits_out)
{
    base_status st = BASE_OK;
    int32_t n = 0;
    for (int32_t at = 0; at < n_tokens && st == BASE_OK; at += n) {
        const int32_t left = left_of_block(run->positions[0]);
        n = n_tokens - at < chunk ? n_tokens - at : chunk;
        n = run->cache->groups != NULL && n > left ? left : n;
        const int32_t last_row = n - 1;
        kv_step_seq seq = {.slot = 0, .n_tokens = n};
        st = eval_run_step(run, &seq, 1, ids + at, &last_row, 1,
                           at + n == n_tokens ? logits_out : NULL);
    }
    return st;
}

static bool is_end(const model_config *config, int32_t id)
{
    for (int32_t i = 0; i < config->n_eos_ids; i++) {
        if (config->eos_ids[i] == id) {
            return true;
        }
    }
    return false;
}

base_status eval_run_generate(eval_run *run, const int32_t *ids, int32_t n_tokens, int32_t max_new,
                              int32_t *ids_out, int32_t *n_ids_out)
{
    base_status st = BASE_OK;
    const model_config *config = &run->model->config;
    int32_t n = 0;
    const base_alloc *mirror = kern_mirror(run->ctx);
    float *logits = mirror->get(mirror->ctx, (size_t)config->n_vocab * sizeof *logits);
    if (logits == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "logits of %d tokens", config->n_vocab);
        goto out;
    }
    eval_run_clear(run);
    BASE_TRY(st, out, eval_run_feed(run, ids, n_tokens, run->options.max_step_tokens, logits));
    while (n < max_new) {
        const int32_t id = eval_logits_best(logits, config->n_vocab);
        if (is_end(config, id)) {
            break;
        }
        ids_out[n++] = id;
        if (n < max_new) {
            BASE_TRY(st, out, eval_run_feed(run, &id, 1, 1, logits));
        }
    }
    *n_ids_out = n;
out:
    mirror->put(mirror->ctx, logits);
    return st;
}
