/* worker/model/model.h - a model folder, opened: configuration, mapped weights, tokenizer files.
 *
 * Folder as downloaded: config.json, model.safetensors or its shards and their index, tokenizer.json,
 * generation_config.json (the last may be missing).  Weights stay where they are mapped: ranks of one host share the page cache.
 * Where ranks share the weights (split.h), a model is this rank's part, and shapes below are the parts'.
 * "random:SHAPE[:SEED]" instead of a folder has no files and no tokenizer (random_model.h).
 * Immutable after open; any thread reads it. */
#ifndef WORKER_MODEL_MODEL_H
#define WORKER_MODEL_MODEL_H

#include "base/alloc.h"
#include "base/dtype.h"
#include "base/hash.h"
#include "base/status.h"
#include "base/view.h"
#include "worker/model/config.h"
#include "worker/model/split.h"

#include <stdbool.h>

typedef struct model_tensor {
    const void *data; /* row-major, dtype, in the mapping or made */
    int64_t n_elems;
    base_dtype dtype;
} model_tensor;

typedef struct model_layer {
    model_tensor attn_norm; /* [C] */
    model_tensor q;         /* [H * D, C] */
    model_tensor k;         /* [Hkv * D, C] */
    model_tensor v;         /* [Hkv * D, C] */
    model_tensor o;         /* [C, H * D] */
    model_tensor q_bias;    /* [H * D]; no data where the model has none, as the next four */
    model_tensor k_bias;    /* [Hkv * D] */
    model_tensor v_bias;    /* [Hkv * D] */
    model_tensor q_norm;    /* [D], of each head */
    model_tensor k_norm;    /* [D] */
    model_tensor mlp_norm;  /* [C] */
    model_tensor gate;      /* [F, C] */
    model_tensor up;        /* [F, C] */
    model_tensor down;      /* [C, F] */
} model_layer;

typedef struct model {
    model_config config;
    model_split split;
    const char *name;                 /* last part of the folder's path */
    model_tensor embedding;           /* [V, C] */
    model_tensor final_norm;          /* [C] */
    model_tensor head;                /* [V, C]; the embedding when tied */
    const model_layer *layers;        /* [L] */
    base_view tokenizer_json;         /* empty in a random model */
    base_view generation_config_json; /* empty if there is none */
    int64_t whole_bytes;              /* of all weights, whatever part of them this is */
    bool mapped;                      /* they lie in files, which ranks of a host share */
    base_hash
        hash;   /* config, tensor directory, sizes and sampled bytes of the weights, tokenizer */
    void *data; /* what the above points to */
    base_alloc mem;
} model;

/* Errors: NOT_FOUND, IO, BAD_INPUT (no such random shape), BAD_FILE (file, tensor or field, reason), NO_MEMORY; nothing stays open. */
BASE_MUST_CHECK base_status model_open(const char *folder, const base_alloc *mem,
                                       model **model_out);
/* How else a model may be opened; zeroed: as by model_open. */
typedef struct model_options {
    base_view
        rope_text;   /* another RoPE scaling: "none" or JSON (config.h); empty is the model's own */
    int32_t rank;    /* the weights of this one of */
    int32_t n_ranks; /* so many that share them; 0 and 1: all weights */
} model_options;

/* Errors: as model_open; BAD_INPUT (model_split_make's). */
BASE_MUST_CHECK base_status model_open_with(const char *folder, const model_options *options,
                                            const base_alloc *mem, model **model_out);
void model_close(model *m); /* NULL is allowed */

/* The two halves of it, for what is decided between them.  A model that has been read has no layers, no tensor has data,
 * and its split is that of a whole model.
 * Errors: as model_open_with. */
BASE_MUST_CHECK base_status model_read(const char *folder, base_view rope_text,
                                       const base_alloc *mem, model **model_out);
/* The weights of `rank` of n_ranks that share them; all where n_ranks is 1.  Once; a model that failed is closed. */
BASE_MUST_CHECK base_status model_load(model *m, int32_t rank, int32_t n_ranks);

#endif /* WORKER_MODEL_MODEL_H */
