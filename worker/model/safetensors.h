/* worker/model/safetensors.h - the tensor directory of one .safetensors file.
 *
 * Pure: bytes in, table out.  Mapping the file is base/file.h's job.  The bytes are untrusted.
 *
 * Promise, for every entry of an index that was returned:
 *   begin <= end <= n_bytes, and end - begin is exactly product(shape) * bytes of dtype, computed
 *   without overflow; begin is a multiple of the dtype's size.
 * Names are unique and NUL-free; entries are sorted by name; no two non-empty ranges overlap. */
#ifndef WORKER_MODEL_SAFETENSORS_H
#define WORKER_MODEL_SAFETENSORS_H

#include "base/alloc.h"
#include "base/dtype.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define SAFETENSORS_MAX_DIMS         8
#define SAFETENSORS_MAX_TENSORS      65536
#define SAFETENSORS_MAX_HEADER_BYTES ((size_t)100 << 20)

typedef struct safetensors_entry {
    const char *name;
    base_dtype dtype;
    int32_t n_dims; /* 0 .. SAFETENSORS_MAX_DIMS; 0 is a scalar */
    int64_t shape[SAFETENSORS_MAX_DIMS];
    size_t begin; /* byte range within the file */
    size_t end;
} safetensors_entry;

typedef struct safetensors_index {
    const safetensors_entry *entries;
    int32_t n_entries;
    base_alloc mem;
} safetensors_index;

/* Reads the directory at the start of bytes[0..n_bytes).  Keeps no pointer to them.  what names the file in
 * errors.  On BASE_OK the caller owns *index_out, safetensors_free ends it.
 * Errors: BAD_FILE (what, tensor, offset, reason), NO_MEMORY. */
BASE_MUST_CHECK base_status safetensors_parse(const uint8_t *bytes, size_t n_bytes,
                                              const char *what, const base_alloc *mem,
                                              safetensors_index **index_out);
void safetensors_free(safetensors_index *index); /* NULL is allowed */

/* NULL if there is none.  O(log n).  Lives as long as the index. */
const safetensors_entry *safetensors_find(const safetensors_index *index, const char *name);

#endif /* WORKER_MODEL_SAFETENSORS_H */
