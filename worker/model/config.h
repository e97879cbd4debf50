/* worker/model/config.h - config.json of a Hugging Face model folder as a checked struct.
 *
 * A field that changes results is honoured or refused by name (BAD_FILE: field, value, what is supported);
 * fields known not to matter for inference are ignored; unknown fields are logged as warnings. */
#ifndef WORKER_MODEL_CONFIG_H
#define WORKER_MODEL_CONFIG_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"
#include "worker/model/rope.h"

#include <stdbool.h>
#include <stdint.h>

#define MODEL_MAX_EOS_IDS      64
#define MODEL_MAX_CONFIG_BYTES ((size_t)1 << 20)

typedef enum model_arch {
#define X(NAME, impl, model_type, class_name) MODEL_ARCH_##NAME,
#include "worker/model/archs.def"
#undef X
} model_arch;

typedef struct model_config {
    model_arch arch;
    int32_t n_layers;    /* L 1..1024 */
    int32_t width;       /* C 8..65536 */
    int32_t n_heads;     /* H */
    int32_t n_kv_heads;  /* Hkv; H = G * Hkv, G 1..16 */
    int32_t head_dim;    /* D 64 or 128 */
    int32_t ffn_width;   /* F */
    int32_t n_vocab;     /* V */
    int64_t max_context; /* max_position_embeddings, or what rope reaches if that is more */
    float rms_eps;
    double rope_theta;
    rope_scaling rope;
    bool tied_embeddings;
    int32_t eos_ids[MODEL_MAX_EOS_IDS]; /* config.json's, replaced by generation_config.json's */
    int32_t n_eos_ids;
} model_config;

/* generation_config_json may be empty.  rope_scaling_text is empty, or replaces the scaling of config_json:
 * "none", or JSON with the fields of rope_scaling; a factor then reaches that many times further than
 * original_max_position_embeddings (max_context if it is not given).
 * Errors: BAD_FILE, NO_MEMORY. */
BASE_MUST_CHECK base_status model_config_parse(base_view config_json,
                                               base_view generation_config_json,
                                               base_view rope_scaling_text,
                                               model_config *config_out);

#endif /* WORKER_MODEL_CONFIG_H */
