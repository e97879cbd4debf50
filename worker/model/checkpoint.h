/* worker/model/checkpoint.h - the weight files of a folder, mapped: model.safetensors, or the files that
 * model.safetensors.index.json names.  Immutable after open. */
#ifndef WORKER_MODEL_CHECKPOINT_H
#define WORKER_MODEL_CHECKPOINT_H

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "worker/model/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct checkpoint_file {
    base_map map;
    char *path;
    safetensors_index *index;
    bool *used; /* [index->n_entries], weights.h marks */
} checkpoint_file;

typedef struct checkpoint {
    char *what; /* the file that a missing tensor is missing in, for errors */
    checkpoint_file *files;
    int32_t n_files;
    base_alloc mem;
} checkpoint;

/* Every tensor of the index must be in its file, and in no other.
 * Errors: NOT_FOUND, IO, BAD_FILE (file, tensor, reason), NO_MEMORY. */
BASE_MUST_CHECK base_status checkpoint_open(const char *folder, const base_alloc *mem,
                                            checkpoint **checkpoint_out);
void checkpoint_close(checkpoint *c); /* NULL is allowed */

/* Of all tensors. */
int64_t checkpoint_bytes(const checkpoint *c);
/* NULL if there is none. */
const safetensors_entry *checkpoint_find(const checkpoint *c, const char *name,
                                         const checkpoint_file **file_out);

#endif /* WORKER_MODEL_CHECKPOINT_H */
