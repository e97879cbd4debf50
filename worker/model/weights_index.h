/* worker/model/weights_index.h - model.safetensors.index.json: which file of a folder holds a tensor.
 *
 * Pure: bytes in, table out.  The bytes are untrusted.
 *
 * Promise, for every index that was returned: tensor names are unique and sorted; every file is a plain
 * name that ends with ".safetensors" and cannot leave the folder; files are unique and sorted, each
 * holds a tensor, and entries[].file is below n_files. */
#ifndef WORKER_MODEL_WEIGHTS_INDEX_H
#define WORKER_MODEL_WEIGHTS_INDEX_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"

#include <stddef.h>
#include <stdint.h>

#define WEIGHTS_INDEX_MAX_BYTES ((size_t)16 << 20)
#define WEIGHTS_INDEX_MAX_FILES 1024
#define WEIGHTS_INDEX_MAX_NAME  255 /* bytes of a file's name */

typedef struct weights_index_entry {
    const char *tensor;
    int32_t file;
} weights_index_entry;

typedef struct weights_index {
    const weights_index_entry *entries;
    const char *const *files;
    int32_t n_entries;
    int32_t n_files;
    base_alloc mem;
} weights_index;

/* Keeps no pointer to text.  what names the file in errors.  weights_index_free ends it.
 * Errors: BAD_FILE (what, tensor or file, reason), NO_MEMORY. */
BASE_MUST_CHECK base_status weights_index_parse(base_view text, const char *what,
                                                const base_alloc *mem, weights_index **index_out);
void weights_index_free(weights_index *index); /* NULL is allowed */

#endif /* WORKER_MODEL_WEIGHTS_INDEX_H */
