/* worker/model/random_model.h - models of real shapes with random bf16 weights, for speed work and tests:
 * "random:SHAPE[:SEED]", shapes in random_shapes.def, seed 0 unless given.
 *
 * Element i of a tensor is a function of (seed, the tensor's name, i) alone, so ranks agree without
 * talking.  Matrices keep the size of what they multiply; norms are near 1. */
#ifndef WORKER_MODEL_RANDOM_MODEL_H
#define WORKER_MODEL_RANDOM_MODEL_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"
#include "worker/model/config.h"
#include "worker/model/split.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct random_weights random_weights;

bool random_model_is(const char *name); /* does it start with "random:"? */

/* The shape's config.json (static) and the seed.  Errors: BAD_INPUT naming the shapes there are. */
BASE_MUST_CHECK base_status random_model_parse(const char *name, base_view *config_json_out,
                                               uint64_t *seed_out);

/* Of all matrices; vectors take less than a thousandth of it. */
int64_t random_weights_bytes(const model_config *config);

/* Holds tensors as they are made.  Errors: NO_MEMORY, also where the host has less memory than
 * this rank's weights take. */
BASE_MUST_CHECK base_status random_weights_create(const model_config *config,
                                                  const model_split *split, uint64_t seed,
                                                  const base_alloc *mem,
                                                  random_weights **weights_out);
void random_weights_destroy(random_weights *w); /* NULL is allowed; ends its tensors */

/* Makes a slice of a tensor of bf16 on all cores that the process may use; its elements are those of the whole tensor.
 * Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status random_weights_make(random_weights *w, const char *name,
                                                const model_slice *slice, const void **data_out);

#endif /* WORKER_MODEL_RANDOM_MODEL_H */
