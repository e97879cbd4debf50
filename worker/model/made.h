/* worker/model/made.h - memory of tensors that are not read where their file is mapped: random ones, and slices that are not in one
 * piece there.  One owner. */
#ifndef WORKER_MODEL_MADE_H
#define WORKER_MODEL_MADE_H

#include "base/alloc.h"

#include <stddef.h>

typedef struct made_part made_part;

typedef struct made_tensors { /* zeroed but for mem: empty */
    made_part *parts;         /* newest first */
    base_alloc mem;
} made_tensors;

/* Memory of one more tensor, or NULL. */
void *made_tensors_add(made_tensors *m, size_t n_bytes);
void made_tensors_reset(made_tensors *m); /* ends all of them */

#endif /* WORKER_MODEL_MADE_H */
