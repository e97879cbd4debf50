#include "worker/model/safetensors.h"

#include "base/checked.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES 8 /* the header's length, little-endian, before the header itself */

static const char *const dtype_texts[] = {
#define X(name, bytes, text) text,
#include "base/dtype.def"
#undef X
};

static base_status dtype_parse(const char *what, const json_t *info, safetensors_entry *e)
{
    const char *text = json_string_value(json_object_get(info, "dtype"));
    for (size_t i = 0; text != NULL && i < sizeof dtype_texts / sizeof dtype_texts[0]; i++) {
        if (strcmp(text, dtype_texts[i]) == 0) {
            e->dtype = (base_dtype)i;
            return BASE_OK;
        }
    }
    return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%.200s' has dtype '%.16s', supported F32 F16 BF16",
                     what, e->name, text == NULL ? "" : text);
}

/* Reads the shape and works out how many bytes it takes. */
static base_status shape_parse(const char *what, const json_t *info, safetensors_entry *e,
                               size_t *n_bytes_out)
{
    const json_t *shape = json_object_get(info, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_DIMS) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: tensor '%.200s': shape is not a list of at most %d sizes", what,
                         e->name, SAFETENSORS_MAX_DIMS);
    }
    size_t n_bytes = base_dtype_bytes(e->dtype);
    e->n_dims = (int32_t)json_array_size(shape);
    for (int32_t d = 0; d < e->n_dims; d++) {
        const json_t *dim = json_array_get(shape, (size_t)d);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%.200s': shape[%d] is not a size", what,
                             e->name, d);
        }
        e->shape[d] = json_integer_value(dim);
        if (!base_checked_mul(n_bytes, (size_t)e->shape[d], &n_bytes)) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%.200s': its shape overflows 64 bits",
                             what, e->name);
        }
    }
    *n_bytes_out = n_bytes;
    return BASE_OK;
}

/* data_offsets count from the end of the header, entries from the start of the file. */
static base_status range_parse(const char *what, const json_t *info, size_t data_begin,
                               size_t n_file_bytes, size_t n_bytes_want, safetensors_entry *e)
{
    const json_t *offsets = json_object_get(info, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0);
    const json_t *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end)) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%.200s': data_offsets is not [begin, end]",
                         what, e->name);
    }
    const int64_t b = json_integer_value(begin);
    const int64_t n = json_integer_value(end);
    if (b < 0 || n < b || (uint64_t)n > n_file_bytes - data_begin) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: tensor '%.200s': data_offsets [%" PRId64 ", %" PRId64
                         "] leave the %zu data bytes of the file",
                         what, e->name, b, n, n_file_bytes - data_begin);
    }
    if ((size_t)(n - b) != n_bytes_want) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: tensor '%.200s': %" PRId64 " bytes at offset %" PRId64
                         ", its shape and dtype take %zu",
                         what, e->name, n - b, b, n_bytes_want);
    }
    e->begin = data_begin + (size_t)b;
    e->end = data_begin + (size_t)n;
    if (e->begin % base_dtype_bytes(e->dtype) != 0) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: tensor '%.200s': file offset %zu is no multiple of its dtype's size",
                         what, e->name, e->begin);
    }
    return BASE_OK;
}

static base_status entry_parse(const char *what, const json_t *info, size_t data_begin,
                               size_t n_file_bytes, safetensors_entry *e)
{
    size_t n_bytes = 0;
    base_status st = dtype_parse(what, info, e);
    if (st == BASE_OK) {
        st = shape_parse(what, info, e, &n_bytes);
    }
    if (st == BASE_OK) {
        st = range_parse(what, info, data_begin, n_file_bytes, n_bytes, e);
    }
    return st;
}

static int by_range(const void *a, const void *b)
{
    const safetensors_entry *x = a;
    const safetensors_entry *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    const safetensors_entry *x = a;
    const safetensors_entry *y = b;
    return strcmp(x->name, y->name);
}

/* The format allows neither holes nor overlaps nor bytes after the last tensor, so a file that was
 * cut off or spliced shows here. */
static base_status layout_check(const char *what, const safetensors_entry *entries, int32_t n,
                                size_t data_begin, size_t n_file_bytes)
{
    size_t at = data_begin;
    for (int32_t i = 0; i < n; i++) {
        if (entries[i].begin != at) {
            return BASE_FAIL(BASE_BAD_FILE,
                             "%s: tensor '%.200s' starts at file offset %zu, the one before it "
                             "ends at %zu",
                             what, entries[i].name, entries[i].begin, at);
        }
        at = entries[i].end;
    }
    if (at != n_file_bytes) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: %zu bytes, the tensors end at %zu", what, n_file_bytes,
                         at);
    }
    return BASE_OK;
}

static base_status header_find(const uint8_t *bytes, size_t n_bytes, const char *what,
                               base_view *header_out)
{
    if (n_bytes < LENGTH_BYTES) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: %zu bytes, too short for a safetensors file", what,
                         n_bytes);
    }
    uint64_t length = 0;
    for (int32_t i = LENGTH_BYTES - 1; i >= 0; i--) {
        length = length << 8 | bytes[i];
    }
    if (length > SAFETENSORS_MAX_HEADER_BYTES || length > n_bytes - LENGTH_BYTES) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: header of %" PRIu64 " bytes in a file of %zu, limit %zu", what,
                         length, n_bytes, SAFETENSORS_MAX_HEADER_BYTES);
    }
    header_out->data = (const char *)bytes + LENGTH_BYTES;
    header_out->n_bytes = (size_t)length;
    return BASE_OK;
}

static bool is_metadata(const char *key)
{
    return strcmp(key, "__metadata__") == 0;
}

/* An index with room for the tensors of root, and their names, in one allocation; NULL and *st_out
 * if that fails. */
static safetensors_index *index_create(const char *what, json_t *root, const base_alloc *mem,
                                       base_status *st_out)
{
    size_t n = 0;
    size_t n_name_bytes = 0;
    const char *key;
    json_t *info;
    json_object_foreach(root, key, info)
    {
        if (!is_metadata(key)) {
            n++;
            n_name_bytes += strlen(key) + 1;
        }
    }
    if (n > SAFETENSORS_MAX_TENSORS) {
        *st_out =
            BASE_FAIL(BASE_BAD_FILE, "%s: %zu tensors, limit %d", what, n, SAFETENSORS_MAX_TENSORS);
        return NULL;
    }
    const size_t n_table_bytes = n * sizeof(safetensors_entry);
    safetensors_index *index = mem->get(mem->ctx, sizeof *index + n_table_bytes + n_name_bytes);
    if (index == NULL) {
        *st_out = BASE_FAIL(BASE_NO_MEMORY, "%s: directory of %zu tensors", what, n);
        return NULL;
    }
    safetensors_entry *entries = (safetensors_entry *)(index + 1);
    char *names = (char *)(entries + n);
    json_object_foreach(root, key, info)
    {
        if (!is_metadata(key)) {
            const size_t n_key_bytes = strlen(key) + 1;
            entries[index->n_entries++].name = memcpy(names, key, n_key_bytes);
            names += n_key_bytes;
        }
    }
    index->entries = entries;
    index->mem = *mem;
    return index;
}

base_status safetensors_parse(const uint8_t *bytes, size_t n_bytes, const char *what,
                              const base_alloc *mem, safetensors_index **index_out)
{
    base_status st = BASE_OK;
    base_view header = {NULL, 0};
    json_t *root = NULL;
    safetensors_index *index = NULL;

    BASE_TRY(st, out, header_find(bytes, n_bytes, what, &header));
    const size_t data_begin = LENGTH_BYTES + header.n_bytes;
    BASE_TRY(st, out, base_json_parse(header, what, &root));
    if (!json_is_object(root)) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: the header is not a JSON object", what);
        goto out;
    }
    index = index_create(what, root, mem, &st);
    if (index == NULL) {
        goto out;
    }
    const size_t n = (size_t)index->n_entries;
    safetensors_entry *entries = (safetensors_entry *)(index + 1);
    for (size_t i = 0; i < n; i++) {
        const json_t *info = json_object_get(root, entries[i].name);
        BASE_TRY(st, out, entry_parse(what, info, data_begin, n_bytes, &entries[i]));
    }
    qsort(entries, n, sizeof *entries, by_range);
    BASE_TRY(st, out, layout_check(what, entries, index->n_entries, data_begin, n_bytes));
    qsort(entries, n, sizeof *entries, by_name);
    *index_out = index;
    index = NULL;

out:
    safetensors_free(index);
    base_json_free(root);
    return st;
}

void safetensors_free(safetensors_index *index)
{
    if (index != NULL) {
        const base_alloc mem = index->mem;
        mem.put(mem.ctx, index);
    }
}

const safetensors_entry *safetensors_find(const safetensors_index *index, const char *name)
{
    const safetensors_entry key = {.name = name};
    return bsearch(&key, index->entries, (size_t)index->n_entries, sizeof key, by_name);
}
