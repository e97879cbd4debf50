#include "worker/model/config.h"

#include "worker/model/config_parts.h"

#include <inttypes.h>
#include <string.h>

#define GENERATION_WHAT "generation_config.json"
#define QWEN3_HEAD_DIM  128  /* when head_dim is absent, as in transformers */
#define MISTRAL_WINDOW  4096 /* the same for sliding_window */
#define MAX_GROUP       16   /* kern_attn's limit of query heads per KV head */

static const struct {
    const char *model_type;
    const char *class_name;
} archs[] = {
#define X(NAME, impl, model_type, class_name) {model_type, class_name},
#include "worker/model/archs.def"
#undef X
};

static const char supported_archs[] = ""
#define X(NAME, impl, model_type, class_name) " " class_name
#include "worker/model/archs.def"
#undef X
    ;

static base_status arch_parse(const json_t *root, model_config *config)
{
    base_view type = {NULL, 0};
    const base_status st = base_json_get_text(root, CONFIG_WHAT, "model_type", true, &type);
    if (st != BASE_OK) {
        return st;
    }
    const json_t *classes = json_object_get(root, "architectures");
    const char *class_name = json_string_value(json_array_get(classes, 0));
    if (class_name == NULL || json_array_size(classes) != 1) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'architectures' is not a list of one class name",
                         CONFIG_WHAT);
    }
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (strcmp(class_name, archs[i].class_name) != 0) {
            continue;
        }
        if (!base_view_equal(type, base_view_of(archs[i].model_type))) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: field 'model_type' is '%.64s', but %s is '%s'",
                             CONFIG_WHAT, type.data, class_name, archs[i].model_type);
        }
        config->arch = (model_arch)i;
        return BASE_OK;
    }
    return BASE_FAIL(BASE_BAD_FILE, "%s: field 'architectures' is '%.64s', supported:%s",
                     CONFIG_WHAT, class_name, supported_archs);
}

static base_status size_parse(const json_t *root, const char *key, bool required, int32_t low,
                              int32_t high, int32_t *size)
{
    int64_t value = *size;
    const base_status st = base_json_get_int(root, CONFIG_WHAT, key, required, low, high, &value);
    if (st == BASE_OK) {
        *size = (int32_t)value;
    }
    return st;
}

static base_status sizes_parse(const json_t *root, model_config *c)
{
    base_status st = BASE_OK;
    int32_t context = 0;
    BASE_TRY(st, out, size_parse(root, "hidden_size", true, 8, 65536, &c->width));
    BASE_TRY(st, out,
             size_parse(root, "intermediate_size", true, 1, CONFIG_MAX_FFN, &c->ffn_width));
    BASE_TRY(st, out, size_parse(root, "num_hidden_layers", true, 1, 1024, &c->n_layers));
    BASE_TRY(st, out, size_parse(root, "vocab_size", true, 1, CONFIG_MAX_VOCAB, &c->n_vocab));
    BASE_TRY(st, out,
             size_parse(root, "max_position_embeddings", true, 1, CONFIG_MAX_CONTEXT, &context));
    c->max_context = context;
    BASE_TRY(st, out,
             size_parse(root, "num_attention_heads", true, 1, CONFIG_MAX_HEADS, &c->n_heads));
    c->n_kv_heads = c->n_heads;
    /* Llama without the field has a KV head for each head; the others have defaults of their own. */
    BASE_TRY(st, out,
             size_parse(root, "num_key_value_heads", c->arch != MODEL_ARCH_LLAMA, 1,
                        CONFIG_MAX_HEADS, &c->n_kv_heads));
    if (c->n_heads % c->n_kv_heads != 0 || c->n_heads / c->n_kv_heads > MAX_GROUP ||
        c->n_kv_heads > 256) {
        st = BASE_FAIL(BASE_BAD_FILE,
                       "%s: field 'num_key_value_heads' is %d with %d attention heads, supported: "
                       "1..256 and 1..%d query heads for each",
                       CONFIG_WHAT, c->n_kv_heads, c->n_heads, MAX_GROUP);
        goto out;
    }
    c->head_dim = c->arch == MODEL_ARCH_QWEN3 ? QWEN3_HEAD_DIM : c->width / c->n_heads;
    BASE_TRY(st, out, size_parse(root, "head_dim", false, 1, 65536, &c->head_dim));
    if (c->head_dim != 64 && c->head_dim != 128) {
        st = BASE_FAIL(BASE_BAD_FILE,
                       "%s: field 'head_dim' is %d, supported: 64, 128 (hidden_size / "
                       "num_attention_heads when absent, 128 in Qwen3)",
                       CONFIG_WHAT, c->head_dim);
    }
out:
    return st;
}

static base_status act_check(const json_t *root)
{
    base_view act = base_view_of("silu");
    const base_status st = base_json_get_text(root, CONFIG_WHAT, "hidden_act", false, &act);
    if (st == BASE_OK && !base_view_equal(act, base_view_of("silu"))) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'hidden_act' is '%.64s', supported: 'silu'",
                         CONFIG_WHAT, act.data);
    }
    return st;
}

/* layer_types lists one kind of attention a layer; only one kind is supported. */
static base_status layer_types_check(const json_t *root)
{
    const json_t *types = json_object_get(root, "layer_types");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (type == NULL || strcmp(type, "full_attention") != 0) {
            return BASE_FAIL(BASE_BAD_FILE,
                             "%s: field 'layer_types' has '%.64s', supported: 'full_attention'",
                             CONFIG_WHAT, type == NULL ? "" : type);
        }
    }
    return BASE_OK;
}

/* A window that no context reaches past is no window.  Qwen's field does nothing by itself:
 * use_sliding_window, which config_known.def refuses, turns it on. */
static base_status window_check(const json_t *root, const model_config *c)
{
    if (c->arch == MODEL_ARCH_QWEN2 || c->arch == MODEL_ARCH_QWEN3) {
        return BASE_OK;
    }
    int64_t window = c->arch == MODEL_ARCH_MISTRAL ? MISTRAL_WINDOW : INT64_MAX;
    const json_t *field = json_object_get(root, "sliding_window");
    if (json_is_null(field)) {
        return BASE_OK;
    }
    const base_status st =
        base_json_get_int(root, CONFIG_WHAT, "sliding_window", false, 1, INT64_MAX, &window);
    if (st == BASE_OK && window < c->max_context) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: field 'sliding_window' is %" PRId64
                         "%s, supported: null, or at least the context of %" PRId64,
                         CONFIG_WHAT, window, field == NULL ? " when absent" : "", c->max_context);
    }
    return st;
}

/* An id or a list of ids; absent or null leaves the ids alone. */
static base_status eos_parse(const json_t *root, const char *what, model_config *config)
{
    const json_t *eos = json_object_get(root, "eos_token_id");
    if (eos == NULL || json_is_null(eos)) {
        return BASE_OK;
    }
    const size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    if (n > MODEL_MAX_EOS_IDS) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'eos_token_id' has %zu ids, limit %d", what, n,
                         MODEL_MAX_EOS_IDS);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(eos) ? json_array_get(eos, i) : eos;
        const json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= config->n_vocab) {
            char text[64];
            config_value_text(id, text, sizeof text);
            return BASE_FAIL(BASE_BAD_FILE, "%s: field 'eos_token_id' has %s, allowed 0..%d", what,
                             text, config->n_vocab - 1);
        }
        config->eos_ids[i] = (int32_t)value;
    }
    config->n_eos_ids = (int32_t)n;
    return BASE_OK;
}

static base_status root_parse(base_view text, const char *what, json_t **root_out)
{
    if (text.n_bytes > MODEL_MAX_CONFIG_BYTES) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: %zu bytes, limit %zu", what, text.n_bytes,
                         MODEL_MAX_CONFIG_BYTES);
    }
    json_t *root = NULL;
    const base_status st = base_json_parse(text, what, &root);
    if (st != BASE_OK) {
        return st;
    }
    if (!json_is_object(root)) {
        base_json_free(root);
        return BASE_FAIL(BASE_BAD_FILE, "%s: not a JSON object", what);
    }
    *root_out = root;
    return BASE_OK;
}

base_status model_config_parse(base_view config_json, base_view generation_config_json,
                               base_view rope_scaling_text, model_config *config_out)
{
    base_status st = BASE_OK;
    json_t *root = NULL;
    json_t *generation = NULL;
    model_config config = {0};
    double rms_eps = 1e-6; /* transformers' default */

    BASE_TRY(st, out, root_parse(config_json, CONFIG_WHAT, &root));
    BASE_TRY(st, out, arch_parse(root, &config));
    BASE_TRY(st, out, config_known_check(root));
    BASE_TRY(st, out, sizes_parse(root, &config));
    BASE_TRY(st, out,
             base_json_get_real(root, CONFIG_WHAT, "rms_norm_eps", false, 1e-12, 0.1, &rms_eps));
    config.rms_eps = (float)rms_eps;
    BASE_TRY(st, out,
             base_json_get_bool(root, CONFIG_WHAT, "tie_word_embeddings", false,
                                &config.tied_embeddings));
    BASE_TRY(st, out, config_rope_parse(root, &config));
    if (rope_scaling_text.n_bytes > 0) {
        BASE_TRY(st, out, config_rope_override(rope_scaling_text, &config));
    }
    BASE_TRY(st, out, window_check(root, &config));
    BASE_TRY(st, out, act_check(root));
    BASE_TRY(st, out, layer_types_check(root));
    BASE_TRY(st, out, eos_parse(root, CONFIG_WHAT, &config));
    if (generation_config_json.n_bytes > 0) {
        BASE_TRY(st, out, root_parse(generation_config_json, GENERATION_WHAT, &generation));
        BASE_TRY(st, out, eos_parse(generation, GENERATION_WHAT, &config));
    }
    *config_out = config;

out:
    base_json_free(generation);
    base_json_free(root);
    return st;
}
