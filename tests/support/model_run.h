/* tests/support/model_run.h - one rank of a model with its cache, for tests: feed tokens, get logits.
 *
 * Block b of every sequence belongs to rank b mod N, which numbers its pages in order of use.  Every
 * failure fails the test. */
#ifndef TESTS_SUPPORT_MODEL_RUN_H
#define TESTS_SUPPORT_MODEL_RUN_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "kvshard/format.h"
#include "kvshard/policy.h"
#include "kvshard/shard.h"
#include "tests/support/test.h"
#include "worker/model/forward.h"
#include "worker/model/model.h"

#include <stdlib.h>

#define MODEL_RUN_SLOTS      4
#define MODEL_RUN_TIMEOUT_MS 20000

typedef struct model_run {
    model *m;
    kv_format *format;
    kern_ctx *ctx;
    comm *ranks; /* borrowed */
    kv_shard *shard;
    forward *f;
    int64_t positions[MODEL_RUN_SLOTS]; /* the next of each slot */
    int32_t next_page;
} model_run;

static inline model_run model_run_open(const char *folder, const char *policy_text, comm *ranks,
                                       int32_t max_step_tokens, int32_t max_context)
{
    model_run r = {.ranks = ranks};
    kv_policy policy;
    const int32_t max_blocks = max_context / KERN_BLOCK_TOKENS + 1;
    CHECK_STATUS(model_open(folder, &base_heap, &r.m), BASE_OK);
    CHECK_STATUS(kv_policy_parse(policy_text, &policy), BASE_OK);
    const kv_shape shape = {r.m->config.n_layers, r.m->config.n_kv_heads, r.m->config.head_dim};
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &r.format), BASE_OK);
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &r.ctx), BASE_OK);
    const kv_shard_options options = {
        .n_pages = MODEL_RUN_SLOTS * (max_blocks / comm_size(ranks) + 1),
        .n_slots = MODEL_RUN_SLOTS,
        .max_step_tokens = max_step_tokens,
        .max_blocks_per_slot = max_blocks,
    };
    CHECK_STATUS(kv_shard_create(r.format, &options, &base_heap, &r.shard), BASE_OK);
    const forward_limits limits = {max_step_tokens, max_step_tokens, MODEL_RUN_TIMEOUT_MS};
    CHECK_STATUS(forward_create(r.m, r.format, r.ctx, ranks, &limits, &base_heap, &r.f), BASE_OK);
    return r;
}

static inline void model_run_close(model_run *r)
{
    forward_destroy(r->f);
    kv_shard_destroy(r->shard);
    kern_ctx_destroy(r->ctx);
    kv_format_destroy(r->format);
    model_close(r->m);
}

/* Gives this rank's share of the blocks that a sequence begins in a step. */
static inline void model_run_add_pages(model_run *r, const kv_step_seq *seq)
{
    const int64_t first = (seq->position + KERN_BLOCK_TOKENS - 1) / KERN_BLOCK_TOKENS;
    const int64_t last = (seq->position + seq->n_tokens - 1) / KERN_BLOCK_TOKENS;
    for (int64_t b = first; b <= last; b++) {
        if (b % comm_size(r->ranks) == comm_rank(r->ranks)) {
            CHECK_STATUS(kv_shard_add_page(r->shard, seq->slot, (int32_t)b, r->next_page++),
                         BASE_OK);
        }
    }
}

/* One step of n_seqs sequences, whose ids follow each other.  seqs[].position is filled in. */
static inline void model_run_step(model_run *r, kv_step_seq *seqs, int32_t n_seqs,
                                  const int32_t *ids, const int32_t *sample_rows, int32_t n_samples,
                                  float *logits_out)
{
    const kv_step *step = NULL;
    for (int32_t i = 0; i < n_seqs; i++) {
        seqs[i].position = r->positions[seqs[i].slot];
        model_run_add_pages(r, &seqs[i]);
    }
    CHECK_STATUS(kv_shard_begin_step(r->shard, seqs, n_seqs, &step), BASE_OK);
    CHECK_STATUS(forward_step(r->f, r->shard, step, ids, sample_rows, n_samples, logits_out),
                 BASE_OK);
    for (int32_t i = 0; i < n_seqs; i++) {
        r->positions[seqs[i].slot] += seqs[i].n_tokens;
    }
}

/* Feeds n_tokens > 0 to slot 0 in steps of at most `chunk`; logits_out [V] of the last token. */
static inline void model_run_feed(model_run *r, const int32_t *ids, int32_t n_tokens, int32_t chunk,
                                  float *logits_out)
{
    for (int32_t at = 0; at < n_tokens; at += chunk) {
        const int32_t n = n_tokens - at < chunk ? n_tokens - at : chunk;
        const int32_t last_row = n - 1;
        kv_step_seq seq = {.slot = 0, .n_tokens = n};
        model_run_step(r, &seq, 1, ids + at, &last_row, 1, at + n == n_tokens ? logits_out : NULL);
    }
}

static inline int32_t model_run_argmax(const float *logits, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

#endif /* TESTS_SUPPORT_MODEL_RUN_H */
