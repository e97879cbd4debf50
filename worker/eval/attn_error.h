/* worker/eval/attn_error.h - how far a policy's keys move attention logits, layer by layer.
 *
 * An observer of a forward pass whose own cache is bf16: every full block of keys that passes is written to a page
 * of the policy and read back (k^, through free groups where the cache has them), and with e = k^ - k two means over all query heads are kept, neither
 * divided by sqrt(D):
 *   offsets  |q_t R_d e_t| over tokens t and 50 real offsets d evenly in -1024..1024, R_d the RoPE rotation:
 *            query and key of one token at a made-up distance, as Block-GTQ's paper measures (arXiv 2606.24033)
 *   pairs    |q_m e_n| over real causal pairs: all positions n in blocks before that of m, which are
 *            what a query reads from pages
 * Only K is measured.  The basis of K must be orthogonal: an error is brought back by the queries' inverse basis.
 *
 * Memory.   f32 errors of one window, all layers: max_context * L * Hkv * D * 4 bytes.
 * Threads.  That of the forward pass. */
#ifndef WORKER_EVAL_ATTN_ERROR_H
#define WORKER_EVAL_ATTN_ERROR_H

#include "kernels/kern.h"
#include "worker/eval/cache.h"
#include "worker/model/forward.h"

#define EVAL_OFFSETS    50
#define EVAL_MAX_OFFSET 1024

typedef struct eval_attn_error eval_attn_error;

typedef struct eval_attn_mae { /* of one layer */
    double offsets;            /* NaN when there was no full block */
    double pairs;              /* NaN when there was no pair */
} eval_attn_mae;

/* cache and ctx are borrowed; ctx is the forward pass's.  max_context: positions of a sequence.
 * Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status eval_attn_error_create(const model_config *config,
                                                   const eval_cache *cache, kern_ctx *ctx,
                                                   int32_t max_context, const base_alloc *mem,
                                                   eval_attn_error **error_out);
void eval_attn_error_destroy(eval_attn_error *error); /* NULL is allowed */

/* A forward_observer; ctx is the eval_attn_error.  Steps hold one sequence and begin at whole blocks; position 0
 * begins a new one.  Errors: BAD_INPUT (a step that does not), the ops'. */
BASE_MUST_CHECK base_status eval_attn_error_see(void *ctx, const forward_observation *seen);

/* Over everything seen so far. */
eval_attn_mae eval_attn_error_layer(const eval_attn_error *error, int32_t layer);

#endif /* WORKER_EVAL_ATTN_ERROR_H */
