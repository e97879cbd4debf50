/* base/bytes.h - a growable byte buffer with a maximum fixed at creation. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"

#include <stddef.h>

typedef struct base_bytes {
    char *data; /* NULL while nothing was added; a NUL always follows the n_bytes */
    size_t n_bytes;
    size_t capacity;
    size_t max_bytes;
    base_alloc mem;
} base_bytes;

/* Empty; allocates nothing.  mem is copied. */
void base_bytes_init(base_bytes *b, size_t max_bytes, const base_alloc *mem);
/* Frees the data and leaves an empty, usable buffer. */
void base_bytes_reset(base_bytes *b);
/* All or nothing.  Errors: OUT_OF_RANGE (past max_bytes), NO_MEMORY. */
BASE_MUST_CHECK base_status base_bytes_add(base_bytes *b, const void *data, size_t n_bytes);
/* Forgets the first n_bytes (at most all of them); keeps the memory. */
void base_bytes_drop_front(base_bytes *b, size_t n_bytes);

static inline base_view base_bytes_view(const base_bytes *b)
{
    const base_view v = {b->data, b->n_bytes};
    return v;
}

#endif /* BASE_BYTES_H */
