/* worker/model/forward.h - one step of the model on this rank: token ids in, logits out.
 *
 * Every rank calls it with the same step; each attends over its own blocks and the partials are
 * merged by one exchange a layer.  Ranks that share a long step's rows (rows.h) merge and multiply these alone, and exchange
 * queries, keys and values.  Ranks that share the weights (split.h) merge and multiply their own heads, and their
 * sums are exchanged too.  Prefill and decode are the same code.
 * Memory.   All scratch is made at create, sized by the limits; a step allocates nothing.
 * Threads.  One owner: the step loop. */
#ifndef WORKER_MODEL_FORWARD_H
#define WORKER_MODEL_FORWARD_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "kvshard/format.h"
#include "kvshard/shard.h"
#include "worker/model/model.h"

typedef struct forward forward;

typedef struct forward_limits {
    int32_t max_step_tokens; /* T */
    int32_t max_samples;     /* rows of logits a step may ask for */
    int64_t timeout_ms;      /* of each exchange */
    int32_t n_slots;         /* whose tokens forward_begin makes; 0: it is not called */
} forward_limits;

/* Everything is borrowed and must outlive the forward; weights and formats are bound to ctx.  Collective: ranks is the
 * comm that exchanges tensors, over the host's memory on CPUs and on ctx on GPUs (kernels/comm/comm.h); a model that is one
 * rank's part is that of the comm's rank.
 * Errors: BAD_INPUT, NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status forward_create(const model *m, const kv_format *format, kern_ctx *ctx,
                                           comm *ranks, const forward_limits *limits,
                                           const base_alloc *mem, forward **forward_out);
void forward_destroy(forward *f); /* NULL is allowed */
/* Of each exchange of the steps that follow; starts as limits->timeout_ms. */
void forward_set_timeout(forward *f, int64_t timeout_ms);
/* Bytes of scratch that create takes; split is the model's. */
int64_t forward_scratch_bytes(const model_config *config, const model_split *split,
                              const forward_limits *limits, int32_t n_ranks);

/* What a layer of a step attends with, shown to the host before the cache takes it.  Valid during the call. */
typedef struct forward_observation {
    int32_t layer;
    int32_t n_tokens;
    const int64_t *positions; /* [n_tokens] */
    const float *q;           /* [n_tokens, H, D]    after RoPE, before the page basis */
    const float *k;           /* [n_tokens, Hkv, D]  after RoPE, before the page basis */
    const float *v;           /* [n_tokens, Hkv, D] */
    const float *inv_freq;    /* [D/2] */
} forward_observation;

/* Called once a layer by the thread of forward_step; a failure ends the step with that status. */
typedef base_status (*forward_observer)(void *ctx, const forward_observation *seen);
/* Of the steps that follow; NULL: none. */
void forward_set_observer(forward *f, forward_observer observer, void *ctx);

/* Runs a step that kv_shard_begin_step laid out.
 *   ids         [step->n_tokens]
 *   sample_rows [n_samples]  tokens of the step whose next-token logits are wanted
 *   logits_out  [n_samples, V] f32, a mirror of ctx, on the ranks that want them; NULL: the head is skipped.  All ranks
 *               ask for the same samples: those that share weights or rows all have a part in them
 * Errors: BAD_INPUT, PEER_LOST, DEVICE_LOST, the observer's. */
BASE_MUST_CHECK base_status forward_step(forward *f, kv_shard *shard, const kv_step *step,
                                         const int32_t *ids, const int32_t *sample_rows,
                                         int32_t n_samples, float *logits_out);

/* ---- steps that make tokens ---- */

typedef struct forward_pick { /* one token */
    int32_t token;            /* of the step, whose logits make it */
    kern_sample_row how;
    const int32_t
        *seen_ids; /* [n_seen], not NULL: the set that a penalty asks for begins anew with these */
    int64_t n_seen;
} forward_pick;

typedef struct forward_made {
    const int32_t *last_tokens;        /* [n_slots] after the step */
    const kern_sample_report *reports; /* [n_picks] of the step, those that were asked for */
} forward_made;

/* Calls the ops of a step that makes n_picks tokens, and does not wait for them: a step may begin before the one before
 * has ended, but no more than KERN_MAX_FETCHES are under way.
 *   ids    [step->n_tokens]  -1 - slot stands for the slot's last token, which the host need not have seen
 *   picks  [n_picks] on rank 0, slots of a step are distinct.  Elsewhere, where tokens come from there, only their `token`
 *          is read
 * Errors: BAD_INPUT, PEER_LOST, DEVICE_LOST. */
BASE_MUST_CHECK base_status forward_begin(forward *f, kv_shard *shard, const kv_step *step,
                                          const int32_t *ids, const forward_pick *picks,
                                          int32_t n_picks);
/* Waits for the step that began first; *made_out is valid until the next call.  Errors: DEVICE_LOST, BAD_INPUT (none
 * is under way). */
BASE_MUST_CHECK base_status forward_end(forward *f, forward_made *made_out);

#endif /* WORKER_MODEL_FORWARD_H */
