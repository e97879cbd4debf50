/* worker/eval/free_groups.h - Block-GTQ's keys as its paper has them (arXiv 2606.24033): a reference that pages do
 * not hold.
 *
 * Every RoPE block (i, i + D/2) has a width of its own, 1..8 bits by its score (kvshard/allocate.h), which is half the
 * sum of its two energies; all blocks
 * of one width are a group of any even number of dims, turned by a dense random rotation and stored as
 * TurboQuant-MSE stores a vector: codes, and one corrected fp16 norm (kernels/op_pack.h).  Codebooks are those of
 * pages, so what differs from the policy block-gtq is the groups and the rotation alone.
 * Sums are f64 but for the norm.  Immutable after create; any thread reads it. */
#ifndef WORKER_EVAL_FREE_GROUPS_H
#define WORKER_EVAL_FREE_GROUPS_H

#include "base/alloc.h"
#include "base/status.h"
#include "kvshard/calibration.h"

#include <stdint.h>

typedef struct eval_free_groups eval_free_groups;

/* mean_bits 1..8 of a block.  calibration is read during the call only.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status eval_free_groups_create(const kv_calibration *calibration,
                                                    int32_t mean_bits, const base_alloc *mem,
                                                    eval_free_groups **groups_out);
void eval_free_groups_destroy(eval_free_groups *groups); /* NULL is allowed */

/* key [D] after RoPE, in the model's order of dims, becomes what a cache would give back. */
void eval_free_groups_apply(const eval_free_groups *groups, int32_t layer, int32_t head,
                            float *key);

/* Bytes of one position's keys, all KV heads of a layer: codes padded to bytes in every group, and norms. */
int32_t eval_free_groups_bytes(const eval_free_groups *groups, int32_t layer);

#endif /* WORKER_EVAL_FREE_GROUPS_H */
