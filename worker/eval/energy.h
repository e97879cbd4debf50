/* worker/eval/energy.h - the calibration of a model: one forward over a text, energies of RoPE blocks.
 *
 * After q/k norms and RoPE, which keeps a block's norm; all in f64, token by token, so the result
 * depends on no thread count.  Memory: a cache of bf16 pages for the text and the scratch of one chunk. */
#ifndef WORKER_EVAL_ENERGY_H
#define WORKER_EVAL_ENERGY_H

#include "base/alloc.h"
#include "base/status.h"
#include "kvshard/calibration.h"
#include "worker/model/model.h"

#include <stdint.h>

#define EVAL_ENERGY_MAX_TOKENS (1 << 20)

/* Called as each layer of a chunk begins: how many pairs of token and layer lie behind, of how many; and at the
 * end, when all do. */
typedef void (*eval_energy_progress)(void *ctx, int64_t n_done, int64_t n_total);

/* ids [n_ids], 1..EVAL_ENERGY_MAX_TOKENS and at most the model's context.  progress may be NULL.
 * Errors: BAD_INPUT, BAD_FILE (the model gives energies that are no finite numbers), NO_MEMORY. */
BASE_MUST_CHECK base_status eval_energy_measure(const model *m, const int32_t *ids, int32_t n_ids,
                                                int32_t n_threads, eval_energy_progress progress,
                                                void *progress_ctx, const base_alloc *mem,
                                                kv_calibration **calibration_out);

#endif /* WORKER_EVAL_ENERGY_H */
