#include "coordinator/defaults.h"

#include "base/json.h"

#include <stdbool.h>

static const char what[] = "generation_config.json";

/* Fields that change results, with the values at which they do nothing. */
static const struct {
    const char *key;
    double neutral;
} unsupported[] = {
    {"num_beams", 1},
    {"num_beam_groups", 1},
    {"penalty_alpha", 0},
    {"typical_p", 1},
    {"epsilon_cutoff", 0},
    {"eta_cutoff", 0},
    {"no_repeat_ngram_size", 0},
    {"encoder_repetition_penalty", 1},
    {"min_new_tokens", 0},
};

static base_status check_unsupported(const json_t *root)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        const json_t *field = json_object_get(root, unsupported[i].key);
        if (field == NULL || json_is_null(field)) {
            continue;
        }
        const double value = json_number_value(field); /* 0 for what is no number */
        if (!json_is_number(field) ||
            !(value >= unsupported[i].neutral && value <= unsupported[i].neutral)) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is supported only with the value %g",
                             what, unsupported[i].key, unsupported[i].neutral);
        }
    }
    return BASE_OK;
}

static base_status parse_sampling(const json_t *root, inference_sampling *sampling)
{
    base_status st = BASE_OK;
    bool do_sample = false;
    double temperature = 1;
    double top_p = 1;
    double min_p = 0;
    double repetition_penalty = 1;
    int64_t top_k = 0;

    BASE_TRY(st, out, base_json_get_bool(root, what, "do_sample", false, &do_sample));
    BASE_TRY(st, out, base_json_get_real(root, what, "temperature", false, 0, 100, &temperature));
    BASE_TRY(st, out, base_json_get_real(root, what, "top_p", false, 1e-6, 1, &top_p));
    BASE_TRY(st, out, base_json_get_real(root, what, "min_p", false, 0, 1, &min_p));
    BASE_TRY(st, out, base_json_get_int(root, what, "top_k", false, 0, 1 << 30, &top_k));
    BASE_TRY(st, out,
             base_json_get_real(root, what, "repetition_penalty", false, 1e-3, 100,
                                &repetition_penalty));
    *sampling = (inference_sampling){
        .temperature = do_sample ? (float)temperature : 0,
        .top_p = (float)top_p,
        .min_p = (float)min_p,
        .repetition_penalty = (float)repetition_penalty,
        .top_k = (int32_t)top_k,
    };

out:
    return st;
}

base_status coord_defaults_add_eos(coord_defaults *defaults, const int32_t *ids, size_t n_ids)
{
    for (size_t i = 0; i < n_ids; i++) {
        size_t k = 0;
        while (k < defaults->n_eos_ids && defaults->eos_ids[k] != ids[i]) {
            k++;
        }
        if (k < defaults->n_eos_ids) {
            continue;
        }
        if (k == GROUP_MAX_EOS_IDS) {
            return BASE_FAIL(BASE_BAD_FILE, "more than %d end-of-sequence ids", GROUP_MAX_EOS_IDS);
        }
        defaults->eos_ids[defaults->n_eos_ids++] = ids[i];
    }
    return BASE_OK;
}

static base_status add_one_eos(coord_defaults *defaults, const json_t *value, int32_t vocab_size)
{
    const int64_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || id >= vocab_size) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'eos_token_id' is no id below %d", what,
                         (int)vocab_size);
    }
    const int32_t id32 = (int32_t)id;
    return coord_defaults_add_eos(defaults, &id32, 1);
}

static base_status parse_eos(const json_t *root, int32_t vocab_size, coord_defaults *defaults)
{
    base_status st = BASE_OK;
    const json_t *field = json_object_get(root, "eos_token_id");

    if (field == NULL || json_is_null(field)) {
        goto out;
    }
    if (!json_is_array(field)) {
        st = add_one_eos(defaults, field, vocab_size);
        goto out;
    }
    for (size_t i = 0; i < json_array_size(field); i++) {
        BASE_TRY(st, out, add_one_eos(defaults, json_array_get(field, i), vocab_size));
    }

out:
    return st;
}

base_status coord_defaults_parse(base_view generation_config_json, int32_t vocab_size,
                                 coord_defaults *defaults_out)
{
    base_status st = BASE_OK;
    json_t *root = NULL;
    int64_t max_new_tokens = COORD_DEFAULT_MAX_NEW_TOKENS;
    coord_defaults parsed = {.sampling = {.top_p = 1, .repetition_penalty = 1}};

    if (generation_config_json.n_bytes > 0) {
        BASE_TRY(st, out, base_json_parse(generation_config_json, what, &root));
        BASE_TRY(st, out, parse_sampling(root, &parsed.sampling));
        BASE_TRY(st, out, check_unsupported(root));
        BASE_TRY(st, out, parse_eos(root, vocab_size, &parsed));
        BASE_TRY(st, out,
                 base_json_get_int(root, what, "max_new_tokens", false, 1, INFERENCE_MAX_NEW_TOKENS,
                                   &max_new_tokens));
    }
    parsed.max_new_tokens = (int32_t)max_new_tokens;
    *defaults_out = parsed;

out:
    base_json_free(root);
    return st;
}

inference_sampling coord_defaults_apply(const coord_defaults *defaults,
                                        const inference_generate_request *request)
{
    inference_sampling used = defaults->sampling;
    const inference_sampling *own = &request->sampling;
    const uint32_t given = request->given;

    used.seed = own->seed;
    if ((given & INFERENCE_GIVEN_TEMPERATURE) != 0) {
        used.temperature = own->temperature;
    }
    if ((given & INFERENCE_GIVEN_TOP_P) != 0) {
        used.top_p = own->top_p;
    }
    if ((given & INFERENCE_GIVEN_TOP_K) != 0) {
        used.top_k = own->top_k;
    }
    if ((given & INFERENCE_GIVEN_MIN_P) != 0) {
        used.min_p = own->min_p;
    }
    if ((given & INFERENCE_GIVEN_REPETITION_PENALTY) != 0) {
        used.repetition_penalty = own->repetition_penalty;
    }
    return used;
}
