#include "coordinator/text/processors_json.h"

#include "coordinator/text/spaces_json.h"
#include "coordinator/text/steps_json.h"

#define WHAT TEXT_JSON_WHAT

/* How ByteLevel cuts when use_regex is true (GPT-2's pattern, which the format does not repeat). */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|"
                                   " ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

static base_status read_normalizer(const json_t *step, base_view type, text_spec *spec)
{
    (void)step;
    if (!text_step_is(type, "NFC")) {
        return text_step_refuse(WHAT ": normalizer", type);
    }
    spec->nfc = true;
    return BASE_OK;
}

static base_status add_pattern(text_spec *spec, base_view text, bool is_literal)
{
    if (spec->n_patterns == TEXT_MAX_PATTERNS) {
        return BASE_FAIL(BASE_BAD_FILE, WHAT ": pre_tokenizer: more than %d patterns",
                         TEXT_MAX_PATTERNS);
    }
    spec->patterns[spec->n_patterns++] = (text_pretokenizer_pattern){text, is_literal};
    return BASE_OK;
}

static base_status read_split(const json_t *step, text_spec *spec)
{
    static const char what[] = WHAT ": pre_tokenizer Split";
    base_status st = BASE_OK;
    base_view text = {NULL, 0};
    base_view behavior = {NULL, 0};
    bool invert = false;

    BASE_TRY(st, out, base_json_get_text(step, what, "behavior", true, &behavior));
    if (!text_step_is(behavior, "Isolated")) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: behavior '%.*s', only Isolated is supported", what,
                       (int)behavior.n_bytes, behavior.data);
        goto out;
    }
    BASE_TRY(st, out, base_json_get_bool(step, what, "invert", false, &invert));
    if (invert) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: field 'invert' true is not supported", what);
        goto out;
    }
    const json_t *pattern = json_object_get(step, "pattern");
    const bool is_literal = json_object_get(pattern, "Regex") == NULL;
    BASE_TRY(st, out,
             base_json_get_text(pattern, what, is_literal ? "String" : "Regex", true, &text));
    BASE_TRY(st, out, add_pattern(spec, text, is_literal));
out:
    return st;
}

static base_status read_byte_level(const json_t *step, text_spec *spec)
{
    static const char what[] = WHAT ": pre_tokenizer ByteLevel";
    base_status st = BASE_OK;
    bool add_prefix_space = true;
    bool use_regex = true;

    BASE_TRY(st, out, base_json_get_bool(step, what, "add_prefix_space", false, &add_prefix_space));
    BASE_TRY(st, out, base_json_get_bool(step, what, "use_regex", false, &use_regex));
    if (add_prefix_space) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: field 'add_prefix_space' true is not supported", what);
        goto out;
    }
    if (use_regex) {
        BASE_TRY(st, out, add_pattern(spec, base_view_of(gpt2_pattern), false));
    }
out:
    return st;
}

static base_status read_pre_tokenizer(const json_t *step, base_view type, text_spec *spec)
{
    if (text_step_is(type, "Split")) {
        return read_split(step, spec);
    }
    if (text_step_is(type, "ByteLevel")) {
        return read_byte_level(step, spec);
    }
    return text_step_refuse(WHAT ": pre_tokenizer", type);
}

/* ByteLevel stands once and last: a Split behind it would see the byte alphabet, not the text. */
static base_status check_byte_level(const json_t *step)
{
    const json_t *steps = json_object_get(step, "pretokenizers");
    const size_t n = json_is_array(steps) ? json_array_size(steps) : 0;
    for (size_t i = 0; i < n; i++) {
        const char *type = json_string_value(json_object_get(json_array_get(steps, i), "type"));
        if ((type != NULL && strcmp(type, "ByteLevel") == 0) != (i + 1 == n)) {
            return BASE_FAIL(BASE_BAD_FILE, WHAT ": pre_tokenizer: ByteLevel must be last, once");
        }
    }
    const char *type = json_string_value(json_object_get(step, "type"));
    if (n == 0 && (type == NULL || strcmp(type, "ByteLevel") != 0)) {
        return BASE_FAIL(BASE_BAD_FILE, WHAT ": pre_tokenizer: ByteLevel is missing");
    }
    return BASE_OK;
}

static bool has_token(const text_spec *spec, json_int_t id)
{
    if (id < 0 || id >= spec->n_ids) {
        return false;
    }
    for (size_t i = 0; i < spec->n_added; i++) {
        if (spec->added[i].id == id) {
            return true;
        }
    }
    return spec->tokens[id].data != NULL;
}

/* Adds the ids that the template's own table gives for the name of a special token. */
static base_status read_template_token(const json_t *table, const json_t *item,
                                       const text_spec *spec, text_spec_template *part)
{
    static const char what[] = WHAT ": post_processor TemplateProcessing";
    base_view name = {NULL, 0};
    const base_status st = base_json_get_text(item, what, "id", true, &name);
    if (st != BASE_OK) {
        return st;
    }
    const json_t *entry = json_object_getn(table, name.data, name.n_bytes);
    const json_t *ids = json_object_get(entry, "ids");
    if (!json_is_array(ids)) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: special_tokens has no ids for '%.*s'", what,
                         (int)name.n_bytes, name.data);
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || !has_token(spec, json_integer_value(id))) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: '%.*s' has an id that is no token", what,
                             (int)name.n_bytes, name.data);
        }
        if (part->n_ids == TEXT_MAX_TEMPLATE_IDS) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: more than %d ids on one side", what,
                             TEXT_MAX_TEMPLATE_IDS);
        }
        part->ids[part->n_ids++] = (int32_t)json_integer_value(id);
    }
    return BASE_OK;
}

static base_status read_template(const json_t *step, text_spec *spec)
{
    const json_t *single = json_object_get(step, "single");
    const json_t *table = json_object_get(step, "special_tokens");
    size_t n_texts = 0;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        const json_t *token = json_object_get(item, "SpecialToken");
        if (token != NULL) {
            text_spec_template *part = n_texts == 0 ? &spec->front : &spec->behind;
            const base_status st = read_template_token(table, token, spec, part);
            if (st != BASE_OK) {
                return st;
            }
        } else {
            const char *id =
                json_string_value(json_object_get(json_object_get(item, "Sequence"), "id"));
            n_texts += id != NULL && strcmp(id, "A") == 0 ? 1 : 2;
        }
    }
    if (n_texts != 1) {
        return BASE_FAIL(BASE_BAD_FILE, WHAT ": post_processor TemplateProcessing: field 'single' "
                                             "does not hold sequence A once");
    }
    return BASE_OK;
}

static base_status read_post_processor(const json_t *step, base_view type, text_spec *spec)
{
    if (text_step_is(type, "ByteLevel")) {
        return BASE_OK; /* moves offsets only */
    }
    if (!text_step_is(type, "TemplateProcessing")) {
        return text_step_refuse(WHAT ": post_processor", type);
    }
    if (spec->front.n_ids + spec->behind.n_ids > 0) {
        return BASE_FAIL(BASE_BAD_FILE, WHAT ": post_processor: two TemplateProcessing");
    }
    return read_template(step, spec);
}

static base_status read_decoder(const json_t *step, base_view type, text_spec *spec)
{
    (void)step;
    (void)spec;
    return text_step_is(type, "ByteLevel") ? BASE_OK : text_step_refuse(WHAT ": decoder", type);
}

/* What byte-level files have in front of BPE and behind it. */
static base_status read_byte_level_steps(text_spec *spec)
{
    base_status st = BASE_OK;
    const json_t *step = text_step_find(spec, "normalizer");
    if (step != NULL) {
        BASE_TRY(st, out,
                 text_steps_read(step, WHAT ": normalizer", "normalizers", spec, read_normalizer));
    }
    step = text_step_find(spec, "pre_tokenizer");
    if (step != NULL) {
        BASE_TRY(st, out,
                 text_steps_read(step, WHAT ": pre_tokenizer", "pretokenizers", spec,
                                 read_pre_tokenizer));
    }
    BASE_TRY(st, out, check_byte_level(step));
    step = text_step_find(spec, "decoder");
    if (step != NULL) {
        BASE_TRY(st, out, text_steps_read(step, WHAT ": decoder", "decoders", spec, read_decoder));
    }
out:
    return st;
}

base_status text_spec_read_processors(text_spec *spec)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out,
             spec->byte_fallback ? text_spec_read_spaces(spec) : read_byte_level_steps(spec));
    const json_t *step = text_step_find(spec, "post_processor");
    if (step != NULL) {
        BASE_TRY(st, out,
                 text_steps_read(step, WHAT ": post_processor", "processors", spec,
                                 read_post_processor));
    }
out:
    return st;
}
