#include "worker/model/weights.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>

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

base_status weights_take(weights *w, const char *name, int32_t rows, int32_t cols,
                         model_tensor *tensor_out)
{
    tensor_out->n_elems = (int64_t)rows * (cols == 0 ? 1 : cols);
    if (w->random != NULL) {
        tensor_out->dtype = BASE_BF16;
        return random_weights_make(w->random, name, rows, cols, &tensor_out->data);
    }
    const checkpoint_file *file = NULL;
    const safetensors_entry *e = checkpoint_find(w->files, name, &file);
    if (e == NULL) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%s' is missing", w->files->what, name);
    }
    const int32_t n_dims = cols == 0 ? 1 : 2;
    if (e->n_dims != n_dims || e->shape[0] != rows || (n_dims == 2 && e->shape[1] != cols)) {
        char got[192];
        shape_text(e, got, sizeof got);
        if (n_dims == 1) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%s' has shape %s, config.json wants [%d]",
                             file->path, name, got, rows);
        }
        return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%s' has shape %s, config.json wants [%d, %d]",
                         file->path, name, got, rows, cols);
    }
    file->used[e - file->index->entries] = true;
    tensor_out->data = file->map.bytes + e->begin;
    tensor_out->dtype = e->dtype;
    return BASE_OK;
}

static void layer_name(int32_t layer, const char *part, char name_out[WEIGHTS_MAX_NAME])
{
    snprintf(name_out, WEIGHTS_MAX_NAME, "model.layers.%d.%s", layer, part);
}

base_status weights_take_layer(weights *w, int32_t layer, const char *part, int32_t rows,
                               int32_t cols, model_tensor *tensor_out)
{
    char name[WEIGHTS_MAX_NAME];
    layer_name(layer, part, name);
    return weights_take(w, name, rows, cols, tensor_out);
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
