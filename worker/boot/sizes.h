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

/* Of the free memory, for all ranks of a host or GPU together, where nobody says otherwise. */
#define SIZES_HOST_FRACTION 0.3
#define SIZES_GPU_FRACTION  0.9

/* Pages for this rank: --pages, else what memory_bytes hold beside tails and scratch, but no more than
 * max_batch sequences of the longest context take.  split is the model's.
 * Errors: OUT_OF_RANGE (memory for not even one page, --max-context above the model's; naming the fix). */
BASE_MUST_CHECK base_status sizes_pages(const worker_options *options, const model_config *config,
                                        const model_split *split, const kv_format *format,
                                        int32_t n_ranks, int64_t memory_bytes,
                                        int32_t *n_pages_out);

/* The engine's options for n_pages on each of n_ranks.
 * Errors: OUT_OF_RANGE (--max-context above what the pools hold). */
BASE_MUST_CHECK base_status sizes_engine(const worker_options *options, const model_config *config,
                                         int32_t n_ranks, int32_t n_pages,
                                         engine_options *engine_out);

#endif /* WORKER_BOOT_SIZES_H */
