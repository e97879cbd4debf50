#include "worker/model/model.h"

#include "base/file.h"
#include "worker/model/arch.h"
#include "worker/model/checkpoint.h"
#include "worker/model/model_hash.h"
#include "worker/model/random_model.h"
#include "worker/model/weights.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENIZER_BYTES ((size_t)64 << 20)

typedef struct model_data { /* what model.data owns */
    checkpoint *files;      /* of a folder */
    made_tensors copies;
    random_weights *random; /* of a random model */
    uint64_t seed;          /* of a random model */
    char *tokenizer_json;
    char *generation_config_json;
    char *name;
    model_layer *layers;
} model_data;

static base_status path_make(const char *folder, const char *file, char path_out[PATH_MAX])
{
    const int n = snprintf(path_out, PATH_MAX, "%s/%s", folder, file);
    if (n < 0 || n >= PATH_MAX) {
        return BASE_FAIL(BASE_NOT_FOUND, "%.200s...: path longer than %d bytes", folder, PATH_MAX);
    }
    return BASE_OK;
}

static base_status file_read(const char *folder, const char *file, size_t max_bytes,
                             const base_alloc *mem, char **bytes_out, base_view *view_out)
{
    char path[PATH_MAX];
    base_status st = path_make(folder, file, path);
    if (st == BASE_OK) {
        st = base_file_read(path, max_bytes, mem, bytes_out, &view_out->n_bytes);
    }
    if (st == BASE_OK) {
        view_out->data = *bytes_out;
    }
    return st;
}

/* Last part of the path; of the resolved path where that says nothing ("." or "models/.."). */
static base_status name_make(const char *folder, const base_alloc *mem, char **name_out)
{
    char resolved[PATH_MAX];
    const char *path = folder;
    for (int32_t attempt = 0;; attempt++) {
        size_t end = strlen(path);
        while (end > 0 && path[end - 1] == '/') {
            end--;
        }
        size_t begin = end;
        while (begin > 0 && path[begin - 1] != '/') {
            begin--;
        }
        const size_t n = end - begin;
        const bool says_nothing = n == 0 || (n == 1 && path[begin] == '.') ||
                                  (n == 2 && memcmp(path + begin, "..", 2) == 0);
        if (says_nothing && attempt == 0 && realpath(folder, resolved) != NULL) {
            path = resolved;
            continue;
        }
        char *name = mem->get(mem->ctx, n + 1);
        if (name == NULL) {
            return BASE_FAIL(BASE_NO_MEMORY, "model name of %zu bytes", n);
        }
        memcpy(name, path + begin, n);
        *name_out = name;
        return BASE_OK;
    }
}

static base_status config_read(const char *folder, base_view rope_text, const base_alloc *mem,
                               model *m, model_data *data)
{
    base_view config_json = {NULL, 0};
    char *bytes = NULL;
    base_status st = file_read(folder, "generation_config.json", MODEL_MAX_CONFIG_BYTES, mem,
                               &data->generation_config_json, &m->generation_config_json);
    if (st == BASE_OK || st == BASE_NOT_FOUND) {
        st = file_read(folder, "config.json", MODEL_MAX_CONFIG_BYTES, mem, &bytes, &config_json);
    }
    if (st == BASE_OK) {
        st = model_config_parse(config_json, m->generation_config_json, rope_text, &m->config);
    }
    mem->put(mem->ctx, bytes);
    return st;
}

base_status model_load(model *m, int32_t rank, int32_t n_ranks)
{
    base_status st = BASE_OK;
    model_data *data = m->data;
    weights w = {.files = data->files, .copies = &data->copies};

    BASE_TRY(st, out, model_split_make(&m->config, rank, n_ranks, &m->split));
    if (data->files == NULL) {
        BASE_TRY(st, out,
                 random_weights_create(&m->config, &m->split, data->seed, &m->mem, &data->random));
        w.random = data->random;
    }
    data->layers = m->mem.get(m->mem.ctx, (size_t)m->config.n_layers * sizeof *data->layers);
    if (data->layers == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%s: table of %d layers", m->name, m->config.n_layers);
        goto out;
    }
    m->layers = data->layers;
    BASE_TRY(st, out, arch_of(m->config.arch)->bind(&w, m, data->layers));
    weights_warn_unused(&w);

out:
    return st;
}

static base_status folder_read(const char *folder, base_view rope_text, const base_alloc *mem,
                               model *m, model_data *data)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out, config_read(folder, rope_text, mem, m, data));
    BASE_TRY(st, out,
             file_read(folder, "tokenizer.json", MAX_TOKENIZER_BYTES, mem, &data->tokenizer_json,
                       &m->tokenizer_json));
    BASE_TRY(st, out, checkpoint_open(folder, mem, &data->files));
    m->whole_bytes = checkpoint_bytes(data->files);
    m->mapped = true;
    BASE_TRY(st, out, model_hash_compute(&m->config, data->files, m->tokenizer_json, &m->hash));
out:
    return st;
}

static base_status random_read(const char *name, base_view rope_text, model *m, model_data *data)
{
    const base_view none = {NULL, 0};
    base_status st = BASE_OK;
    base_view config_json = {NULL, 0};
    BASE_TRY(st, out, random_model_parse(name, &config_json, &data->seed));
    BASE_TRY(st, out, model_config_parse(config_json, none, rope_text, &m->config));
    m->whole_bytes = random_weights_bytes(&m->config);
    BASE_TRY(st, out, model_hash_random(&m->config, data->seed, &m->hash));
out:
    return st;
}

base_status model_read(const char *folder, base_view rope_text, const base_alloc *mem,
                       model **model_out)
{
    base_status st = BASE_OK;
    model *m = mem->get(mem->ctx, sizeof *m);
    if (m == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "model");
        goto out;
    }
    m->mem = *mem;
    model_data *data = mem->get(mem->ctx, sizeof *data);
    if (data == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "model");
        goto out;
    }
    m->data = data;
    data->copies.mem = *mem;
    BASE_TRY(st, out, name_make(folder, mem, &data->name));
    m->name = data->name;
    BASE_TRY(st, out,
             random_model_is(folder) ? random_read(folder, rope_text, m, data)
                                     : folder_read(folder, rope_text, mem, m, data));
    BASE_TRY(st, out, model_split_make(&m->config, 0, 1, &m->split));
    *model_out = m;
    m = NULL;

out:
    model_close(m);
    return st;
}

base_status model_open(const char *folder, const base_alloc *mem, model **model_out)
{
    const model_options as_it_is = {.rank = 0};
    return model_open_with(folder, &as_it_is, mem, model_out);
}

base_status model_open_with(const char *folder, const model_options *options, const base_alloc *mem,
                            model **model_out)
{
    base_status st = BASE_OK;
    model *m = NULL;
    BASE_TRY(st, out, model_read(folder, options->rope_text, mem, &m));
    BASE_TRY(st, out, model_load(m, options->rank, options->n_ranks == 0 ? 1 : options->n_ranks));
    *model_out = m;
    m = NULL;
out:
    model_close(m);
    return st;
}

void model_close(model *m)
{
    if (m == NULL) {
        return;
    }
    const base_alloc mem = m->mem;
    model_data *data = m->data;
    if (data != NULL) {
        checkpoint_close(data->files);
        made_tensors_reset(&data->copies);
        random_weights_destroy(data->random);
        mem.put(mem.ctx, data->tokenizer_json);
        mem.put(mem.ctx, data->generation_config_json);
        mem.put(mem.ctx, data->name);
        mem.put(mem.ctx, data->layers);
        mem.put(mem.ctx, data);
    }
    mem.put(mem.ctx, m);
}
