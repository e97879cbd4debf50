/* worker/model/model_hash.h - the name of a model's content, the same wherever its files lie. */
#ifndef WORKER_MODEL_MODEL_HASH_H
#define WORKER_MODEL_MODEL_HASH_H

#include "base/hash.h"
#include "base/status.h"
#include "base/view.h"
#include "worker/model/checkpoint.h"
#include "worker/model/config.h"

#include <stddef.h>

#define MODEL_HASH_SAMPLE_BYTES ((size_t)4 << 10) /* read of every MODEL_HASH_STRIDE_BYTES */
#define MODEL_HASH_STRIDE_BYTES ((size_t)1 << 20)

/* Covers config, tokenizer_json, size and directory of each file, and samples of the rest: a weight
 * changed between the samples goes unseen.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status model_hash_compute(const model_config *config, const checkpoint *files,
                                               base_view tokenizer_json, base_hash *hash_out);

/* Of a random model: config and seed.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status model_hash_random(const model_config *config, uint64_t seed,
                                              base_hash *hash_out);

#endif /* WORKER_MODEL_MODEL_HASH_H */
