#include "worker/model/config_parts.h"

#include <math.h>
#include <string.h>

#define DEFAULT_THETA    10000.0 /* what transformers assumes when the field is absent */
#define MAX_THETA        1e15
#define MAX_FACTOR       65536.0
#define MAX_ATTENTION    100.0
#define IN_SCALING       CONFIG_WHAT ": rope_scaling"
#define IN_PARAMETERS    CONFIG_WHAT ": rope_parameters"
#define IN_OPTION        "--rope-scaling"
#define ORIGINAL_CONTEXT "original_max_position_embeddings"
#define KINDS(kind)      (1u << (kind))
#define ALL_KINDS        0xfu

static const char *const kind_names[] = {"default", "linear", "llama3", "yarn"};

/* The fields that a description may have, and the kinds that they mean something to. */
static const struct {
    const char *key;
    unsigned kinds;
} fields[] = {
    {"rope_type", ALL_KINDS},
    {"type", ALL_KINDS},
    {"rope_theta", ALL_KINDS},
    {"partial_rotary_factor", ALL_KINDS},
    {"finetuned", ALL_KINDS}, /* says how the model was made */
    {ORIGINAL_CONTEXT, ALL_KINDS},
    {"factor", KINDS(ROPE_LINEAR) | KINDS(ROPE_LLAMA3) | KINDS(ROPE_YARN)},
    {"low_freq_factor", KINDS(ROPE_LLAMA3)},
    {"high_freq_factor", KINDS(ROPE_LLAMA3)},
    {"beta_fast", KINDS(ROPE_YARN)},
    {"beta_slow", KINDS(ROPE_YARN)},
    {"attention_factor", KINDS(ROPE_YARN)},
    {"mscale", KINDS(ROPE_YARN)},
    {"mscale_all_dim", KINDS(ROPE_YARN)},
    {"truncate", KINDS(ROPE_YARN)},
};

typedef struct description {
    rope_scaling scaling;
    double theta;    /* 0: not given */
    double original; /* 0: not given */
} description;

static base_status kind_parse(const json_t *rope, const char *what, rope_kind *kind_out)
{
    base_view type = {NULL, 0};
    base_status st = base_json_get_text(rope, what, "rope_type", false, &type);
    if (st == BASE_OK && type.data == NULL) {
        st = base_json_get_text(rope, what, "type", false, &type);
    }
    if (st != BASE_OK) {
        return st;
    }
    for (size_t i = 0; type.data != NULL && i < sizeof kind_names / sizeof kind_names[0]; i++) {
        if (base_view_equal(type, base_view_of(kind_names[i]))) {
            *kind_out = (rope_kind)i;
            return BASE_OK;
        }
    }
    return BASE_FAIL(
        BASE_BAD_FILE,
        "%s: field 'rope_type' is '%.64s', supported: 'default', 'linear', 'llama3', 'yarn'", what,
        type.data == NULL ? "" : type.data);
}

static base_status fields_check(json_t *rope, const char *what, rope_kind kind)
{
    const char *key;
    json_t *value;
    json_object_foreach(rope, key, value)
    {
        unsigned kinds = 0;
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
            kinds |= strcmp(key, fields[i].key) == 0 ? fields[i].kinds : 0;
        }
        if ((kinds & KINDS(kind)) == 0 && !json_is_null(value)) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: field '%.64s' is not supported with '%s'", what,
                             key, kind_names[kind]);
        }
    }
    return BASE_OK;
}

static base_status llama3_parse(const json_t *rope, const char *what, rope_scaling *s)
{
    base_status st = BASE_OK;
    BASE_TRY(
        st, out,
        base_json_get_real(rope, what, "low_freq_factor", true, 1e-6, 1e6, &s->low_freq_factor));
    BASE_TRY(
        st, out,
        base_json_get_real(rope, what, "high_freq_factor", true, 1e-6, 1e6, &s->high_freq_factor));
    if (s->high_freq_factor <= s->low_freq_factor) {
        st = BASE_FAIL(BASE_BAD_FILE,
                       "%s: field 'high_freq_factor' is %g, it must be above low_freq_factor %g",
                       what, s->high_freq_factor, s->low_freq_factor);
    }
out:
    return st;
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static base_status yarn_parse(const json_t *rope, const char *what, rope_scaling *s)
{
    base_status st = BASE_OK;
    double mscale = 0.0;
    double mscale_all_dim = 0.0;
    s->beta_fast = 32.0;
    s->beta_slow = 1.0;
    s->truncate = true;
    BASE_TRY(st, out, base_json_get_real(rope, what, "beta_fast", false, 1e-6, 1e6, &s->beta_fast));
    BASE_TRY(st, out, base_json_get_real(rope, what, "beta_slow", false, 1e-6, 1e6, &s->beta_slow));
    if (s->beta_fast < s->beta_slow) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: field 'beta_fast' is %g, at least beta_slow %g", what,
                       s->beta_fast, s->beta_slow);
        goto out;
    }
    BASE_TRY(st, out, base_json_get_bool(rope, what, "truncate", false, &s->truncate));
    BASE_TRY(st, out, base_json_get_real(rope, what, "mscale", false, 0.0, MAX_ATTENTION, &mscale));
    BASE_TRY(st, out,
             base_json_get_real(rope, what, "mscale_all_dim", false, 0.0, MAX_ATTENTION,
                                &mscale_all_dim));
    s->attention_factor =
        mscale > 0.0 && mscale_all_dim > 0.0
            ? yarn_mscale(s->factor, mscale) / yarn_mscale(s->factor, mscale_all_dim)
            : yarn_mscale(s->factor, 1.0);
    BASE_TRY(st, out,
             base_json_get_real(rope, what, "attention_factor", false, 1e-3, MAX_ATTENTION,
                                &s->attention_factor));
out:
    return st;
}

/* One of the objects that rotary embeddings are described with.  max_context is the original one
 * where none is given, as in transformers. */
static base_status description_parse(json_t *rope, const char *what, int64_t max_context,
                                     description *out)
{
    base_status st = BASE_OK;
    description d = {.theta = 0.0};
    rope_scaling *s = &d.scaling;
    double partial = 1.0;
    double factor = 1.0;

    if (!json_is_object(rope)) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: not a JSON object", what);
        goto out;
    }
    BASE_TRY(st, out, kind_parse(rope, what, &s->kind));
    BASE_TRY(st, out, fields_check(rope, what, s->kind));
    BASE_TRY(st, out,
             base_json_get_real(rope, what, "partial_rotary_factor", false, 1.0, 1.0, &partial));
    BASE_TRY(st, out,
             base_json_get_real(rope, what, "rope_theta", false, 1.0, MAX_THETA, &d.theta));
    BASE_TRY(st, out,
             base_json_get_real(rope, what, ORIGINAL_CONTEXT, false, 1.0, CONFIG_MAX_CONTEXT,
                                &d.original));
    if (s->kind != ROPE_DEFAULT) {
        BASE_TRY(st, out, base_json_get_real(rope, what, "factor", true, 1.0, MAX_FACTOR, &factor));
        s->factor = factor;
    }
    if (s->kind == ROPE_LLAMA3) {
        BASE_TRY(st, out, llama3_parse(rope, what, s));
    }
    if (s->kind == ROPE_YARN) {
        BASE_TRY(st, out, yarn_parse(rope, what, s));
    }
    if (s->kind == ROPE_LLAMA3 || s->kind == ROPE_YARN) {
        s->original_context = d.original > 0.0 ? d.original : (double)max_context;
    }
    *out = d;
out:
    return st;
}

static bool scaling_equal(const rope_scaling *a, const rope_scaling *b)
{
    return a->kind == b->kind && a->factor == b->factor &&
           a->original_context == b->original_context && a->low_freq_factor == b->low_freq_factor &&
           a->high_freq_factor == b->high_freq_factor && a->beta_fast == b->beta_fast &&
           a->beta_slow == b->beta_slow && a->attention_factor == b->attention_factor &&
           a->truncate == b->truncate;
}

/* A scaled model reaches factor times its original context, whatever max_position_embeddings says. */
static void extend(double original, double factor, model_config *config)
{
    const double reach = fmin(original * factor, (double)CONFIG_MAX_CONTEXT);
    if (reach > (double)config->max_context) {
        config->max_context = (int64_t)reach;
    }
}

static base_status object_parse(json_t *root, const char *key, const char *what,
                                int64_t max_context, bool *is_given_out, description *out)
{
    json_t *rope = json_object_get(root, key);
    *is_given_out = rope != NULL && !json_is_null(rope);
    return *is_given_out ? description_parse(rope, what, max_context, out) : BASE_OK;
}

static bool is_extended(rope_kind kind)
{
    return kind == ROPE_LLAMA3 || kind == ROPE_YARN;
}

base_status config_rope_parse(json_t *root, model_config *config)
{
    base_status st = BASE_OK;
    description old = {.theta = 0.0}; /* of transformers 4 */
    description new = {.theta = 0.0}; /* of transformers 5 */
    bool has_old = false;
    bool has_new = false;
    double theta = 0.0;
    double original = 0.0;

    BASE_TRY(st, out,
             object_parse(root, "rope_scaling", IN_SCALING, config->max_context, &has_old, &old));
    BASE_TRY(
        st, out,
        object_parse(root, "rope_parameters", IN_PARAMETERS, config->max_context, &has_new, &new));
    if (has_old && has_new && !scaling_equal(&old.scaling, &new.scaling)) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: fields 'rope_scaling' and 'rope_parameters' disagree",
                       CONFIG_WHAT);
        goto out;
    }
    const description *d = has_new ? &new : &old;
    BASE_TRY(st, out,
             base_json_get_real(root, CONFIG_WHAT, "rope_theta", false, 1.0, MAX_THETA, &theta));
    const double inner = new.theta > 0.0 ? new.theta : old.theta;
    if (inner > 0.0 && theta > 0.0 && inner != theta) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: field 'rope_theta' is %g, in %s it is %g", CONFIG_WHAT,
                       theta, has_new ? "rope_parameters" : "rope_scaling", inner);
        goto out;
    }
    BASE_TRY(st, out,
             base_json_get_real(root, CONFIG_WHAT, ORIGINAL_CONTEXT, false, 1.0, CONFIG_MAX_CONTEXT,
                                &original));
    config->rope_theta = inner > 0.0 ? inner : theta > 0.0 ? theta : DEFAULT_THETA;
    config->rope = d->scaling;
    if (is_extended(config->rope.kind)) {
        if (original > 0.0) { /* transformers lets the outer field win */
            config->rope.original_context = original;
        }
        if (original > 0.0 || d->original > 0.0) {
            extend(config->rope.original_context, config->rope.factor, config);
        }
    }
out:
    return st;
}

base_status config_rope_override(base_view text, model_config *config)
{
    if (base_view_equal(text, base_view_of("none"))) {
        config->rope = (rope_scaling){.kind = ROPE_DEFAULT};
        return BASE_OK;
    }
    json_t *rope = NULL;
    description d;
    base_status st = base_json_parse(text, IN_OPTION, &rope);
    if (st == BASE_OK) {
        st = description_parse(rope, IN_OPTION, config->max_context, &d);
    }
    base_json_free(rope);
    if (st != BASE_OK) {
        return st;
    }
    config->rope = d.scaling;
    config->rope_theta = d.theta > 0.0 ? d.theta : config->rope_theta;
    if (d.scaling.kind != ROPE_DEFAULT) {
        extend(d.original > 0.0 ? d.original : (double)config->max_context, d.scaling.factor,
               config);
    }
    return BASE_OK;
}
