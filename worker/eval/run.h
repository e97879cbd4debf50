/* worker/eval/run.h - one rank of a model with a cache of its own: feed tokens, get logits.
 *
 * For measures, tools and tests; the step loop of a server is engine/.  A slot is a sequence; block b of every
 * sequence belongs to rank b mod N, which numbers its pages in order of use.
 * A policy without pages (cache.h) has its keys replaced after the step that fills a block, so a step of such a
 * run stays within one block of each sequence: what a query sees is the same rule then.
 * Memory.   Pages for n_slots sequences of max_context positions, forward's scratch: made at create.
 * Threads.  One owner.  With several ranks every call that steps is collective. */
#ifndef WORKER_EVAL_RUN_H
#define WORKER_EVAL_RUN_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "kvshard/calibration.h"
#include "kvshard/format.h"
#include "kvshard/policy.h"
#include "kvshard/shard.h"
#include "worker/eval/cache.h"
#include "worker/model/forward.h"
#include "worker/model/model.h"

#define EVAL_RUN_MAX_SLOTS  16
#define EVAL_RUN_TIMEOUT_MS 60000 /* of an exchange */

typedef struct eval_run_options {
    int32_t max_step_tokens;
    int32_t max_samples;
    int32_t max_context;               /* positions of one sequence */
    int32_t n_slots;                   /* 1..EVAL_RUN_MAX_SLOTS */
    const kv_calibration *calibration; /* of the policy, for create only; NULL: it needs none */
} eval_run_options;

typedef struct eval_run {
    const model *model; /* borrowed, like ctx and ranks */
    kern_ctx *ctx;
    comm *ranks;
    eval_cache *cache;
    kv_shard *shard;
    forward *forward;
    eval_run_options options;
    int64_t positions[EVAL_RUN_MAX_SLOTS]; /* the next of each slot */
    int32_t next_page;
    base_alloc mem;
} eval_run;

/* Everything but policy is borrowed and must outlive the run.  Several runs may share a model and a ctx.
 * Errors: BAD_INPUT (options), NO_MEMORY, and what making the cache gives. */
BASE_MUST_CHECK base_status eval_run_create(const model *m, const kv_policy *policy, kern_ctx *ctx,
                                            comm *ranks, const eval_run_options *options,
                                            const base_alloc *mem, eval_run **run_out);
void eval_run_destroy(eval_run *run); /* NULL is allowed */

/* Forgets all sequences. */
void eval_run_clear(eval_run *run);

/* One step of n_seqs sequences, whose ids follow each other; seqs[].position is filled in.
 * sample_rows and logits_out (a mirror of ctx) as of forward_step.  Errors: OUT_OF_RANGE (past max_context),
 * BAD_INPUT (over a block's end under a policy without pages), forward_step's. */
BASE_MUST_CHECK base_status eval_run_step(eval_run *run, kv_step_seq *seqs, int32_t n_seqs,
                                          const int32_t *ids, const int32_t *sample_rows,
                                          int32_t n_samples, float *logits_out);

/* Feeds n_tokens > 0 to slot 0 in steps of at most chunk, cut at blocks where the policy asks for it;
 * logits_out [V] of the last token. */
BASE_MUST_CHECK base_status eval_run_feed(eval_run *run, const int32_t *ids, int32_t n_tokens,
                                          int32_t chunk, float *logits_out);

/* Clears, feeds the prompt (n_tokens > 0) to slot 0 in the largest steps allowed, and picks the likeliest token
 * until max_new tokens or one of the model's end tokens, which is not part of ids_out [max_new].
 * Errors: as eval_run_feed, NO_MEMORY. */
BASE_MUST_CHECK base_status eval_run_generate(eval_run *run, const int32_t *ids, int32_t n_tokens,
                                              int32_t max_new, int32_t *ids_out,
                                              int32_t *n_ids_out);

#endif /* WORKER_EVAL_RUN_H */
