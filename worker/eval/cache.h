/* worker/eval/cache.h - what a policy stores, and in how many bytes: pages, or a reference that pages do not hold.
 *
 * A reference (block-gtq:paper=1) has pages with bf16 keys.  Once a block is full, its keys are replaced by what
 * the reference gives back; its bytes are those that its own codes and norms would take.
 * Immutable after create; any thread reads it. */
#ifndef WORKER_EVAL_CACHE_H
#define WORKER_EVAL_CACHE_H

#include "kvshard/calibration.h"
#include "kvshard/format.h"
#include "kvshard/policy.h"
#include "worker/eval/free_groups.h"

typedef struct eval_cache {
    kv_format *format;
    eval_free_groups *groups; /* NULL: pages say it all */
    base_alloc mem;
} eval_cache;

/* calibration: of the policy, for the call only; NULL if it needs none.
 * Errors: BAD_INPUT, NO_MEMORY, as of kv_format_create_calibrated. */
BASE_MUST_CHECK base_status eval_cache_create(const kv_policy *policy, const kv_shape *shape,
                                              const kv_calibration *calibration,
                                              const base_alloc *mem, eval_cache **cache_out);
void eval_cache_destroy(eval_cache *cache); /* NULL is allowed */

/* page: of a block that is full, all layers.  Does nothing where pages say it all. */
void eval_cache_fill(const eval_cache *cache, uint8_t *page);

/* Bits of an element, codes, norms and padding: K of one layer, K and V of all. */
double eval_cache_layer_k_bits(const eval_cache *cache, int32_t layer);
double eval_cache_k_bits(const eval_cache *cache);
double eval_cache_v_bits(const eval_cache *cache);
/* Bytes of one position in whole blocks. */
double eval_cache_bytes_per_token(const eval_cache *cache);

#endif /* WORKER_EVAL_CACHE_H */
