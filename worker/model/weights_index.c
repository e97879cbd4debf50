#include "worker/model/weights_index.h"

#include "base/json.h"
#include "worker/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

#define SUFFIX ".safetensors"

typedef struct sizes {
    size_t n_entries;
    size_t n_text_bytes; /* of all names, each file's as often as it is named */
} sizes;

static base_status file_name_check(const char *what, const char *tensor, const json_t *value)
{
    const char *name = json_string_value(value);
    const size_t n = name == NULL ? 0 : strlen(name);
    const size_t n_suffix = strlen(SUFFIX);
    if (n <= n_suffix || n > WEIGHTS_INDEX_MAX_NAME || strcmp(name + n - n_suffix, SUFFIX) != 0 ||
        name[0] == '.' || strchr(name, '/') != NULL || strchr(name, '\\') != NULL ||
        json_string_length(value) != n) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: tensor '%.200s' is in '%.100s', allowed is the name of a " SUFFIX
                         " file of the same folder",
                         what, tensor, name == NULL ? "" : name);
    }
    return BASE_OK;
}

static base_status map_check(const char *what, json_t *map, sizes *sizes_out)
{
    sizes s = {0, 0};
    const char *tensor;
    json_t *value;
    if (!json_is_object(map)) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'weight_map' is not a JSON object", what);
    }
    json_object_foreach(map, tensor, value)
    {
        const base_status st = file_name_check(what, tensor, value);
        if (st != BASE_OK) {
            return st;
        }
        s.n_entries++;
        s.n_text_bytes += strlen(tensor) + 1 + json_string_length(value) + 1;
    }
    if (s.n_entries == 0 || s.n_entries > SAFETENSORS_MAX_TENSORS) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'weight_map' has %zu tensors, allowed 1..%d",
                         what, s.n_entries, SAFETENSORS_MAX_TENSORS);
    }
    *sizes_out = s;
    return BASE_OK;
}

static int by_text(const void *a, const void *b)
{
    const char *const *x = a;
    const char *const *y = b;
    return strcmp(*x, *y);
}

static int by_tensor(const void *a, const void *b)
{
    const weights_index_entry *x = a;
    const weights_index_entry *y = b;
    return strcmp(x->tensor, y->tensor);
}

/* Drops repeated names of a sorted list. */
static size_t unique(const char **names, size_t n)
{
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (n_kept == 0 || strcmp(names[n_kept - 1], names[i]) != 0) {
            names[n_kept++] = names[i];
        }
    }
    return n_kept;
}

static base_status fill(json_t *map, const char *what, const sizes *s, weights_index *index)
{
    weights_index_entry *entries = (weights_index_entry *)(index + 1);
    const char **files = (const char **)(entries + s->n_entries);
    char *text = (char *)(files + s->n_entries);
    const char *tensor;
    json_t *value;
    size_t n = 0;
    json_object_foreach(map, tensor, value)
    {
        const size_t n_tensor = strlen(tensor) + 1;
        const size_t n_file = json_string_length(value) + 1;
        entries[n].tensor = memcpy(text, tensor, n_tensor);
        text += n_tensor;
        files[n++] = memcpy(text, json_string_value(value), n_file);
        text += n_file;
    }
    qsort(files, n, sizeof *files, by_text);
    const size_t n_files = unique(files, n);
    if (n_files > WEIGHTS_INDEX_MAX_FILES) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'weight_map' names %zu files, limit %d", what,
                         n_files, WEIGHTS_INDEX_MAX_FILES);
    }
    for (size_t i = 0; i < n; i++) {
        const char *file = json_string_value(json_object_get(map, entries[i].tensor));
        const char **found = bsearch(&file, files, n_files, sizeof *files, by_text);
        entries[i].file = (int32_t)(found - files);
    }
    qsort(entries, n, sizeof *entries, by_tensor);
    index->entries = entries;
    index->files = files;
    index->n_entries = (int32_t)n;
    index->n_files = (int32_t)n_files;
    return BASE_OK;
}

base_status weights_index_parse(base_view text, const char *what, const base_alloc *mem,
                                weights_index **index_out)
{
    base_status st = BASE_OK;
    json_t *root = NULL;
    weights_index *index = NULL;
    sizes s = {0, 0};

    BASE_TRY(st, out, base_json_parse(text, what, &root));
    json_t *map = json_object_get(root, "weight_map");
    BASE_TRY(st, out, map_check(what, map, &s));
    index = mem->get(mem->ctx, sizeof *index + s.n_text_bytes +
                                   s.n_entries * (sizeof(weights_index_entry) + sizeof(char *)));
    if (index == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%s: index of %zu tensors", what, s.n_entries);
        goto out;
    }
    index->mem = *mem;
    BASE_TRY(st, out, fill(map, what, &s, index));
    *index_out = index;
    index = NULL;

out:
    weights_index_free(index);
    base_json_free(root);
    return st;
}

void weights_index_free(weights_index *index)
{
    if (index != NULL) {
        const base_alloc mem = index->mem;
        mem.put(mem.ctx, index);
    }
}
