#include "base/bytes.h"

#include <string.h>

void base_bytes_init(base_bytes *b, size_t max_bytes, const base_alloc *mem)
{
    *b = (base_bytes){.max_bytes = max_bytes, .mem = *mem};
}

void base_bytes_reset(base_bytes *b)
{
    b->mem.put(b->mem.ctx, b->data);
    b->data = NULL;
    b->n_bytes = 0;
    b->capacity = 0;
}

base_status base_bytes_add(base_bytes *b, const void *data, size_t n_bytes)
{
    if (n_bytes > b->max_bytes - b->n_bytes) {
        return BASE_FAIL(BASE_OUT_OF_RANGE, "buffer of %zu bytes would pass its limit of %zu",
                         b->n_bytes, b->max_bytes);
    }
    const size_t need = b->n_bytes + n_bytes;
    if (need + 1 > b->capacity) {
        size_t capacity = b->capacity < 64 ? 64 : 2 * b->capacity;
        if (capacity < need + 1) {
            capacity = need + 1;
        }
        char *grown = b->mem.get(b->mem.ctx, capacity);
        if (grown == NULL) {
            return BASE_FAIL(BASE_NO_MEMORY, "buffer of %zu bytes", capacity);
        }
        if (b->n_bytes > 0) {
            memcpy(grown, b->data, b->n_bytes);
        }
        b->mem.put(b->mem.ctx, b->data);
        b->data = grown;
        b->capacity = capacity;
    }
    if (n_bytes > 0) {
        memcpy(b->data + b->n_bytes, data, n_bytes);
    }
    b->n_bytes = need;
    b->data[need] = '\0';
    return BASE_OK;
}

void base_bytes_drop_front(base_bytes *b, size_t n_bytes)
{
    if (n_bytes >= b->n_bytes) {
        n_bytes = b->n_bytes;
    }
    if (n_bytes > 0) {
        memmove(b->data, b->data + n_bytes, b->n_bytes - n_bytes + 1);
        b->n_bytes -= n_bytes;
    }
}
