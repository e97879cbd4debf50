#include "worker/model/checkpoint.h"

#include "worker/model/weights_index.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SINGLE "model.safetensors"
#define INDEX  "model.safetensors.index.json"

static base_status path_make(const char *folder, const char *file, const base_alloc *mem,
                             char **path_out)
{
    char text[PATH_MAX];
    const int n = snprintf(text, sizeof text, "%s/%s", folder, file);
    if (n < 0 || n >= PATH_MAX) {
        return BASE_FAIL(BASE_NOT_FOUND, "%.200s...: path longer than %d bytes", folder, PATH_MAX);
    }
    char *path = mem->get(mem->ctx, (size_t)n + 1);
    if (path == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "path of %d bytes", n);
    }
    memcpy(path, text, (size_t)n + 1);
    *path_out = path;
    return BASE_OK;
}

static base_status file_open(const char *folder, const char *name, const base_alloc *mem,
                             checkpoint_file *f)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out, path_make(folder, name, mem, &f->path));
    BASE_TRY(st, out, base_map_open(f->path, &f->map));
    BASE_TRY(st, out, safetensors_parse(f->map.bytes, f->map.n_bytes, f->path, mem, &f->index));
    f->used = mem->get(mem->ctx, (size_t)f->index->n_entries + 1);
    if (f->used == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%s: table of %d tensors", f->path, f->index->n_entries);
    }
out:
    return st;
}

/* A tensor in a file that the index does not send us to is a folder of two downloads. */
static base_status index_check(const checkpoint *c, const weights_index *index)
{
    for (int32_t i = 0; i < index->n_entries; i++) {
        const weights_index_entry *e = &index->entries[i];
        for (int32_t f = 0; f < c->n_files; f++) {
            const bool is_there = safetensors_find(c->files[f].index, e->tensor) != NULL;
            if (is_there != (f == e->file)) {
                return BASE_FAIL(BASE_BAD_FILE, "%s: tensor '%.200s' is in '%s', which has %s",
                                 c->what, e->tensor, index->files[e->file],
                                 is_there ? "it, and another file too" : "no such tensor");
            }
        }
    }
    return BASE_OK;
}

static base_status files_open(const char *folder, const char *const *names, int32_t n,
                              checkpoint *c)
{
    c->files = c->mem.get(c->mem.ctx, (size_t)n * sizeof *c->files);
    if (c->files == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%s: table of %d files", folder, n);
    }
    for (int32_t i = 0; i < n; i++) {
        c->n_files = i + 1;
        const base_status st = file_open(folder, names[i], &c->mem, &c->files[i]);
        if (st != BASE_OK) {
            return st;
        }
    }
    return BASE_OK;
}

static base_status sharded_open(const char *folder, base_view text, checkpoint *c)
{
    base_status st = BASE_OK;
    weights_index *index = NULL;
    BASE_TRY(st, out, weights_index_parse(text, c->what, &c->mem, &index));
    BASE_TRY(st, out, files_open(folder, index->files, index->n_files, c));
    BASE_TRY(st, out, index_check(c, index));
out:
    weights_index_free(index);
    return st;
}

base_status checkpoint_open(const char *folder, const base_alloc *mem, checkpoint **checkpoint_out)
{
    static const char *const single = SINGLE;
    base_status st = BASE_OK;
    char *path = NULL;
    char *text = NULL;
    size_t n_text = 0;
    checkpoint *c = mem->get(mem->ctx, sizeof *c);
    if (c == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "checkpoint");
        goto out;
    }
    c->mem = *mem;
    BASE_TRY(st, out, path_make(folder, INDEX, mem, &c->what));
    BASE_TRY(st, out, path_make(folder, SINGLE, mem, &path));
    /* As in transformers, an index left beside the single file is not read. */
    if (access(path, F_OK) == 0 || access(c->what, F_OK) != 0) {
        mem->put(mem->ctx, c->what);
        c->what = path;
        path = NULL;
        BASE_TRY(st, out, files_open(folder, &single, 1, c));
    } else {
        BASE_TRY(st, out, base_file_read(c->what, WEIGHTS_INDEX_MAX_BYTES, mem, &text, &n_text));
        const base_view view = {text, n_text};
        BASE_TRY(st, out, sharded_open(folder, view, c));
    }
    *checkpoint_out = c;
    c = NULL;

out:
    mem->put(mem->ctx, text);
    mem->put(mem->ctx, path);
    checkpoint_close(c);
    return st;
}

void checkpoint_close(checkpoint *c)
{
    if (c == NULL) {
        return;
    }
    const base_alloc mem = c->mem;
    for (int32_t i = 0; i < c->n_files; i++) {
        checkpoint_file *f = &c->files[i];
        safetensors_free(f->index);
        base_map_close(&f->map);
        mem.put(mem.ctx, f->path);
        mem.put(mem.ctx, f->used);
    }
    mem.put(mem.ctx, c->files);
    mem.put(mem.ctx, c->what);
    mem.put(mem.ctx, c);
}

int64_t checkpoint_bytes(const checkpoint *c)
{
    int64_t n_bytes = 0;
    for (int32_t i = 0; i < c->n_files; i++) {
        const safetensors_index *index = c->files[i].index;
        for (int32_t e = 0; e < index->n_entries; e++) {
            n_bytes += (int64_t)(index->entries[e].end - index->entries[e].begin);
        }
    }
    return n_bytes;
}

const safetensors_entry *checkpoint_find(const checkpoint *c, const char *name,
                                         const checkpoint_file **file_out)
{
    for (int32_t i = 0; i < c->n_files; i++) {
        const safetensors_entry *e = safetensors_find(c->files[i].index, name);
        if (e != NULL) {
            *file_out = &c->files[i];
            return e;
        }
    }
    return NULL;
}
