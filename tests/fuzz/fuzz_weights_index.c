#include "worker/model/weights_index.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void file_check(const char *name)
{
    const size_t n = strlen(name);
    if (n > WEIGHTS_INDEX_MAX_NAME || n < 13 || strchr(name, '/') != NULL || name[0] == '.' ||
        strcmp(name + n - 12, ".safetensors") != 0) {
        abort();
    }
}

/* Whatever the input, parse must either refuse it or keep its promise. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    weights_index *index = NULL;
    const base_view text = {(const char *)bytes, n_bytes};
    if (weights_index_parse(text, "fuzz", &base_heap, &index) != BASE_OK) {
        if (index != NULL) {
            abort();
        }
        return 0;
    }
    for (int32_t f = 0; f < index->n_files; f++) {
        file_check(index->files[f]);
        if (f > 0 && strcmp(index->files[f - 1], index->files[f]) >= 0) {
            abort();
        }
    }
    for (int32_t i = 0; i < index->n_entries; i++) {
        const weights_index_entry *e = &index->entries[i];
        if (e->file < 0 || e->file >= index->n_files ||
            (i > 0 && strcmp(index->entries[i - 1].tensor, e->tensor) >= 0)) {
            abort();
        }
    }
    weights_index_free(index);
    return 0;
}
