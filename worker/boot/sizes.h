/* worker/boot/sizes.h - how many pages a rank gets and how long a sequence may be.  Pure. */
#ifndef WORKER_BOOT_SIZES_H
#define WORKER_BOOT_SIZES_H

#include "base/status.h"
#include "kvshard/format.h"
#include "worker/engine/engine.h"
#include "worker/engine/options.h"
#include "worker/model/config.h"
#include "worker/model/split.h"

#include <stdint.h>

/* Pages for this rank: --pages, else what memory_bytes hold beside tails and scratch, but no more than
 * max_batch sequences of the longest context take.  split is the model's.
 * Errors: OUT_OF_RANGE (memory for not even one page, --max-context above the model's, --prefill-chunk above what ranks
 * exchange at once; naming the fix). */
BASE_MUST_CHECK base_status sizes_pages(const worker_options *options, const model_config *config,
                                        const model_split *split, const kv_format *format,
                                        int32_t n_ranks, int64_t memory_bytes,
                                        int32_t *n_pages_out);

/* The least of cache and scratch that is of use on a rank: with its part of one sequence of --max-context, else of
 * SIZES_LEAST_TOKENS or of the model's longest; --pages, where given. */
#define SIZES_LEAST_TOKENS 8192
int64_t sizes_least(const worker_options *options, const model_config *config,
                    const model_split *split, const kv_format *format, int32_t n_ranks);

/* The engine's options for n_pages on each of n_ranks.
 * Errors: OUT_OF_RANGE (--max-context above what the pools hold). */
BASE_MUST_CHECK base_status sizes_engine(const worker_options *options, const model_config *config,
                                         int32_t n_ranks, int32_t n_pages,
                                         engine_options *engine_out);

#endif /* WORKER_BOOT_SIZES_H */
