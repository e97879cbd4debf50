#include "worker/model/weights.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* "[4096, 256]" */
static void shape_text(const safetensors_entry *e, char *text_out, size_t n_bytes)
{
    size_t at = (size_t)snprintf(text_out, n_bytes, "[");
    for (int32_t d = 0; d < e->n_dims && at < n_bytes; d++) {
        at += (size_t)snprintf(text_out + at, n_bytes - at, "%s%" PRId64, d > 0 ? ", " : "",
                               e->shape[d]);
    }
    if (at < n_bytes) {
        snprintf(text_out + at, n_bytes - at, "]");
    }
}

static base_status shape_check(const checkpoint_file *file, const safetensors_entry *e,
                               const char *name, const model_slice *slice)
{
    const int32_t n_dims = slice->cols == 0 ? 1 : 2;
    char got[192];
    if (e->n_dims == n_dims && e->shape[0] == slice->rows &&
        (n_dims == 1 || e->shape[1] == slice->cols)) {
        return BASE_OK;
    }
    shape_text(e, got, sizeof got);
    if (n_dims == 1) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%s' has shape %s, config.json wants [%d]",
                         file->path, name, got, slice->rows);
    }
    return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%s' has shape %s, config.json wants [%d, %d]",
                     file->path, name, got, slice->rows, slice->cols);
}

/* Some columns of every row.  The pages of the file that were read for it are let go: the rank keeps its slice alone. */
static base_status copy_columns(made_tensors *copies, const checkpoint_file *file,
                                const safetensors_entry *e, const model_slice *slice,
                                model_tensor *tensor_out)
{
    const model_span row = model_slice_rows(slice);
    const model_span col = model_slice_cols(slice);
    const size_t elem = base_dtype_bytes(e->dtype);
    const size_t n_bytes = (size_t)model_span_count(col) * elem;
    const size_t pitch = (size_t)slice->cols * elem;
    const uint8_t *from =
        file->map.bytes + e->begin + (size_t)row.begin * pitch + (size_t)col.begin * elem;
    uint8_t *to = made_tensors_add(copies, (size_t)model_span_count(row) * n_bytes);

    if (to == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%s: %lld elements of tensor '%s'", file->path,
                         (long long)tensor_out->n_elems, e->name);
    }
    for (size_t r = 0; r < (size_t)model_span_count(row); r++) {
        memcpy(to + r * n_bytes, from + r * pitch, n_bytes);
    }
    base_map_let_go(&file->map, e->begin, e->end - e->begin);
    tensor_out->data = to;
    return BASE_OK;
}

base_status weights_take(weights *w, const char *name, const model_slice *slice,
                         model_tensor *tensor_out)
{
    base_status st = BASE_OK;
    const model_span row = model_slice_rows(slice);
    const model_span col = model_slice_cols(slice);
    const int64_t n_cols = model_span_count(col);

    tensor_out->n_elems = model_span_count(row) * n_cols;
    if (w->random != NULL) {
        tensor_out->dtype = BASE_BF16;
        return random_weights_make(w->random, name, slice, &tensor_out->data);
    }
    const checkpoint_file *file = NULL;
    const safetensors_entry *e = checkpoint_find(w->files, name, &file);
    if (e == NULL) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%s' is missing", w->files->what, name);
    }
    BASE_TRY(st, out, shape_check(file, e, name, slice));
    file->used[e - file->index->entries] = true;
    tensor_out->dtype = e->dtype;
    if (slice->cols != 0 && n_cols != slice->cols) {
        BASE_TRY(st, out, copy_columns(w->copies, file, e, slice, tensor_out));
    } else {
        const size_t row_bytes = (size_t)n_cols * base_dtype_bytes(e->dtype);
        tensor_out->data = file->map.bytes + e->begin + (size_t)row.begin * row_bytes;
    }
out:
    return st;
}

static void layer_name(int32_t layer, const char *part, char name_out[WEIGHTS_MAX_NAME])
{
    snprintf(name_out, WEIGHTS_MAX_NAME, "model.layers.%d.%s", layer, part);
}

base_status weights_take_layer(weights *w, int32_t layer, const char *part,
                               const model_slice *slice, model_tensor *tensor_out)
{
    char name[WEIGHTS_MAX_NAME];
    layer_name(layer, part, name);
    return weights_take(w, name, slice, tensor_out);
}

void weights_ignore(weights *w, const char *name)
{
    const checkpoint_file *file = NULL;
    const safetensors_entry *e = w->files == NULL ? NULL : checkpoint_find(w->files, name, &file);
    if (e != NULL) {
        file->used[e - file->index->entries] = true;
    }
}

void weights_ignore_layer(weights *w, int32_t layer, const char *part)
{
    char name[WEIGHTS_MAX_NAME];
    layer_name(layer, part, name);
    weights_ignore(w, name);
}

void weights_warn_unused(const weights *w)
{
    int32_t n = 0;
    const char *first = NULL;
    for (int32_t f = 0; w->files != NULL && f < w->files->n_files; f++) {
        const checkpoint_file *file = &w->files->files[f];
        for (int32_t i = 0; i < file->index->n_entries; i++) {
            if (!file->used[i]) {
                first = first == NULL ? file->index->entries[i].name : first;
                n++;
            }
        }
    }
    if (n > 0) {
        BASE_WARN(
            "%s: %d tensors are not part of the model and are not used, the first is '%.200s'",
            w->files->what, n, first);
    }
}
