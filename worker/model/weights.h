/* worker/model/weights.h - named tensors of a checkpoint, taken one by one with the shape they must
 * have.  Lives only while a model is opened. */
#ifndef WORKER_MODEL_WEIGHTS_H
#define WORKER_MODEL_WEIGHTS_H

#include "base/status.h"
#include "worker/model/checkpoint.h"
#include "worker/model/made.h"
#include "worker/model/model.h"
#include "worker/model/random_model.h"

#include <stdbool.h>
#include <stdint.h>

#define WEIGHTS_MAX_NAME 128

typedef struct weights {
    const checkpoint *files; /* borrowed; its marks are set */
    made_tensors *copies;    /* borrowed: slices of files that are not in one piece there */
    random_weights *random;  /* borrowed; not NULL: tensors are made, and there are no files */
} weights;

/* Finds a tensor and takes a slice of it: where it is mapped if the slice is whole rows, else a copy.
 * Errors: BAD_FILE naming the tensor, and its shape if that is wrong; NO_MEMORY where it is made or copied. */
BASE_MUST_CHECK base_status weights_take(weights *w, const char *name, const model_slice *slice,
                                         model_tensor *tensor_out);
/* The same for "model.layers.<layer>.<part>". */
BASE_MUST_CHECK base_status weights_take_layer(weights *w, int32_t layer, const char *part,
                                               const model_slice *slice, model_tensor *tensor_out);

/* Marks a tensor as known and not needed; it may be absent. */
void weights_ignore(weights *w, const char *name);
void weights_ignore_layer(weights *w, int32_t layer, const char *part);

/* One warning if there are tensors that nobody took or ignored. */
void weights_warn_unused(const weights *w);

#endif /* WORKER_MODEL_WEIGHTS_H */
