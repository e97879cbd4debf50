#include "worker/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void entry_check(const safetensors_index *index, int32_t i, size_t n_file_bytes)
{
    const safetensors_entry *e = &index->entries[i];
    size_t n_bytes_want = base_dtype_bytes(e->dtype);
    if (e->n_dims < 0 || e->n_dims > SAFETENSORS_MAX_DIMS) {
        abort();
    }
    for (int32_t d = 0; d < e->n_dims; d++) {
        if (e->shape[d] < 0 ||
            __builtin_mul_overflow(n_bytes_want, (size_t)e->shape[d], &n_bytes_want)) {
            abort();
        }
    }
    if (e->begin > e->end || e->end > n_file_bytes || e->end - e->begin != n_bytes_want ||
        e->begin % base_dtype_bytes(e->dtype) != 0 || safetensors_find(index, e->name) != e ||
        (i > 0 && strcmp(index->entries[i - 1].name, e->name) >= 0)) {
        abort();
    }
    for (int32_t j = 0; j < i; j++) {
        const safetensors_entry *other = &index->entries[j];
        if (other->begin < other->end && e->begin < e->end && other->begin < e->end &&
            e->begin < other->end) {
            abort();
        }
    }
}

/* Whatever the input, parse must either refuse it or keep its promise. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    safetensors_index *index = NULL;
    if (safetensors_parse(bytes, n_bytes, "fuzz", &base_heap, &index) != BASE_OK) {
        if (index != NULL) {
            abort();
        }
        return 0;
    }
    for (int32_t i = 0; i < index->n_entries; i++) {
        entry_check(index, i, n_bytes);
    }
    safetensors_free(index);
    return 0;
}
