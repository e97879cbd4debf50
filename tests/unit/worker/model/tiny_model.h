/* tests/unit/worker/model/tiny_model.h - writes a model folder of 2 layers with random weights.
 *
 * All weights are bf16 values, so the same model can be written with any dtype. */
#ifndef TESTS_UNIT_WORKER_MODEL_TINY_MODEL_H
#define TESTS_UNIT_WORKER_MODEL_TINY_MODEL_H

#include "base/dtype.h"
#include "base/half.h"
#include "base/random.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TINY_LAYERS 2
#define TINY_VOCAB  40
#define TINY_CONFIG                                                                          \
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":32," \
    "\"num_hidden_layers\":2,\"intermediate_size\":48,\"vocab_size\":40,"                    \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"head_dim\":64,"                   \
    "\"max_position_embeddings\":1024,\"eos_token_id\":1}"

typedef struct tiny_tensor {
    const char *name; /* "%d" is the layer */
    int32_t rows;
    int32_t cols; /* 0: a vector */
} tiny_tensor;

static const tiny_tensor tiny_tensors[] = {
    {"model.embed_tokens.weight", TINY_VOCAB, 32},
    {"model.norm.weight", 32, 0},
    {"lm_head.weight", TINY_VOCAB, 32},
    {"model.layers.%d.input_layernorm.weight", 32, 0},
    {"model.layers.%d.self_attn.q_proj.weight", 256, 32},
    {"model.layers.%d.self_attn.k_proj.weight", 128, 32},
    {"model.layers.%d.self_attn.v_proj.weight", 128, 32},
    {"model.layers.%d.self_attn.o_proj.weight", 32, 256},
    {"model.layers.%d.post_attention_layernorm.weight", 32, 0},
    {"model.layers.%d.mlp.gate_proj.weight", 48, 32},
    {"model.layers.%d.mlp.up_proj.weight", 48, 32},
    {"model.layers.%d.mlp.down_proj.weight", 32, 48},
};

typedef struct tiny_options {
    base_dtype dtype;
    uint64_t seed;
    const char *leave_out; /* a tensor's full name, or NULL */
    const char *add;       /* the name of one more tensor of shape [1], or NULL */
    const char *transpose; /* a matrix to write with its shape reversed, or NULL */
} tiny_options;

typedef struct tiny_folder {
    char path[64];
} tiny_folder;

static inline void tiny_write(const tiny_folder *folder, const char *name, const void *bytes,
                              size_t n_bytes)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(bytes, 1, n_bytes, f) != n_bytes || fclose(f) != 0) {
        fail_msg("cannot write %s", path);
    }
}

typedef struct tiny_file {
    char header[8192];
    uint8_t data[1 << 20];
    size_t n_header;
    size_t n_data;
    uint64_t stream;
} tiny_file;

static inline void tiny_add(tiny_file *f, const tiny_options *o, const char *name, int32_t rows,
                            int32_t cols)
{
    if (o->leave_out != NULL && strcmp(name, o->leave_out) == 0) {
        return;
    }
    static const char *const dtypes[] = {"F32", "F16", "BF16"};
    const size_t n = (size_t)rows * (size_t)(cols == 0 ? 1 : cols);
    const size_t begin = f->n_data;
    for (size_t i = 0; i < n; i++) {
        /* Norm weights near 1, matrices of about unit gain: within the range of f16. */
        const double r = base_random_normal(o->seed, f->stream, i);
        const float wide = (float)(cols == 0 ? 1.0 + 0.1 * r : 0.18 * r);
        const uint16_t bf16 = base_bf16_from_f32(wide);
        const float x = base_f32_from_bf16(bf16);
        const uint16_t f16 = base_f16_from_f32(x);
        if (o->dtype == BASE_F32) {
            memcpy(f->data + f->n_data, &x, 4);
        } else {
            memcpy(f->data + f->n_data, o->dtype == BASE_F16 ? &f16 : &bf16, 2);
        }
        f->n_data += base_dtype_bytes(o->dtype);
    }
    f->stream++;
    char shape[32];
    const bool reversed = o->transpose != NULL && strcmp(name, o->transpose) == 0;
    if (cols == 0) {
        snprintf(shape, sizeof shape, "[%d]", rows);
    } else {
        snprintf(shape, sizeof shape, "[%d,%d]", reversed ? cols : rows, reversed ? rows : cols);
    }
    f->n_header += (size_t)snprintf(
        f->header + f->n_header, sizeof f->header - f->n_header,
        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
        f->n_header == 0 ? "{" : ",", name, dtypes[o->dtype], shape, begin, f->n_data);
}

static inline void tiny_write_weights(const tiny_folder *folder, const tiny_options *o)
{
    tiny_file *f = calloc(1, sizeof *f);
    assert_non_null(f);
    for (size_t t = 0; t < sizeof tiny_tensors / sizeof tiny_tensors[0]; t++) {
        const tiny_tensor *spec = &tiny_tensors[t];
        const char *mark = strstr(spec->name, "%d");
        for (int32_t layer = 0; layer < (mark == NULL ? 1 : TINY_LAYERS); layer++) {
            char name[128];
            if (mark == NULL) {
                snprintf(name, sizeof name, "%s", spec->name);
            } else {
                snprintf(name, sizeof name, "%.*s%d%s", (int)(mark - spec->name), spec->name, layer,
                         mark + 2);
            }
            tiny_add(f, o, name, spec->rows, spec->cols);
        }
    }
    if (o->add != NULL) {
        tiny_add(f, o, o->add, 1, 0);
    }
    f->header[f->n_header++] = '}';
    while (f->n_header % 8 != 0) {
        f->header[f->n_header++] = ' ';
    }
    uint8_t *file = calloc(1, 8 + f->n_header + f->n_data);
    assert_non_null(file);
    for (int32_t i = 0; i < 8; i++) {
        file[i] = (uint8_t)((uint64_t)f->n_header >> (8 * i));
    }
    memcpy(file + 8, f->header, f->n_header);
    memcpy(file + 8 + f->n_header, f->data, f->n_data);
    tiny_write(folder, "model.safetensors", file, 8 + f->n_header + f->n_data);
    free(file);
    free(f);
}

/* A complete folder of its own under /tmp. */
static inline tiny_folder tiny_create(const tiny_options *o)
{
    tiny_folder folder = {"/tmp/tiny-model-XXXXXX"};
    assert_non_null(mkdtemp(folder.path));
    tiny_write(&folder, "config.json", TINY_CONFIG, strlen(TINY_CONFIG));
    tiny_write(&folder, "tokenizer.json", "{}", 2);
    tiny_write_weights(&folder, o);
    return folder;
}

static inline void tiny_remove(const tiny_folder *folder)
{
    static const char *const names[] = {"config.json", "tokenizer.json", "model.safetensors",
                                        "generation_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder->path, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder->path);
}

#endif /* TESTS_UNIT_WORKER_MODEL_TINY_MODEL_H */
