#include "coordinator/text/spaces_json.h"

#include "coordinator/text/steps_json.h"

#define WHAT TEXT_JSON_WHAT

/* Checks that field key of step is text and equals want. */
static base_status want_text(const json_t *step, const char *what, const char *key,
                             const char *want)
{
    base_view value = {NULL, 0};
    const base_status st = base_json_get_text(step, what, key, true, &value);
    if (st == BASE_OK && !text_step_is(value, want)) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is '%.*s', only '%s' is supported", what,
                         key, (int)value.n_bytes, value.data, want);
    }
    return st;
}

/* A Replace of the plain string from by to. */
static base_status want_replace(const json_t *step, const char *what, const char *from,
                                const char *to)
{
    const base_status st = want_text(json_object_get(step, "pattern"), what, "String", from);
    return st == BASE_OK ? want_text(step, what, "content", to) : st;
}

static base_status read_normalizer(const json_t *step, base_view type, text_spec *spec)
{
    text_spaces *spaces = &spec->spaces;
    if (text_step_is(type, "Prepend")) {
        if (spaces->prefix != TEXT_PREFIX_NEVER) {
            return BASE_FAIL(BASE_BAD_FILE, WHAT ": normalizer: two Prepend");
        }
        spaces->prefix = TEXT_PREFIX_ALWAYS;
        return want_text(step, WHAT ": normalizer Prepend", "prepend", TEXT_SPACE_MARK);
    }
    if (text_step_is(type, "Replace")) {
        spaces->by_normalizer = true;
        return want_replace(step, WHAT ": normalizer Replace", " ", TEXT_SPACE_MARK);
    }
    return text_step_refuse(WHAT ": normalizer", type);
}

static base_status read_metaspace(const json_t *step, text_spec *spec)
{
    static const char what[] = WHAT ": pre_tokenizer Metaspace";
    base_status st = BASE_OK;
    base_view scheme = {NULL, 0};
    bool add_prefix_space = true;
    bool split = true;

    BASE_TRY(st, out, want_text(step, what, "replacement", TEXT_SPACE_MARK));
    BASE_TRY(st, out, base_json_get_bool(step, what, "add_prefix_space", false, &add_prefix_space));
    BASE_TRY(st, out, base_json_get_text(step, what, "prepend_scheme", false, &scheme));
    BASE_TRY(st, out, base_json_get_bool(step, what, "split", false, &split));
    if (scheme.data == NULL) { /* files older than the field */
        scheme = base_view_of(add_prefix_space ? "always" : "never");
    }
    if (text_step_is(scheme, "first")) {
        spec->spaces.prefix = TEXT_PREFIX_FIRST;
    } else if (text_step_is(scheme, "always")) {
        spec->spaces.prefix = TEXT_PREFIX_ALWAYS;
    } else if (!text_step_is(scheme, "never")) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: prepend_scheme '%.*s' is not supported", what,
                       (int)scheme.n_bytes, scheme.data);
        goto out;
    }
    if (!add_prefix_space && spec->spaces.prefix != TEXT_PREFIX_NEVER) {
        st =
            BASE_FAIL(BASE_BAD_FILE, "%s: add_prefix_space false contradicts prepend_scheme", what);
        goto out;
    }
    spec->spaces.split = split;
out:
    return st;
}

/* Behind a normalizer that leaves no space, a Split at spaces does nothing. */
static base_status read_idle_split(const json_t *step)
{
    static const char what[] = WHAT ": pre_tokenizer Split";
    return want_text(json_object_get(step, "pattern"), what, "String", " ");
}

static base_status read_pre_tokenizer(const json_t *step, text_spec *spec)
{
    static const char what[] = WHAT ": pre_tokenizer";
    base_view type = {NULL, 0};
    if (step != NULL) {
        const base_status st = base_json_get_text(step, what, "type", true, &type);
        if (st != BASE_OK) {
            return st;
        }
    }
    if (step == NULL || (text_step_is(type, "Split") && spec->spaces.by_normalizer)) {
        return step == NULL ? BASE_OK : read_idle_split(step);
    }
    if (!text_step_is(type, "Metaspace")) {
        return text_step_refuse(what, type);
    }
    if (spec->spaces.by_normalizer || spec->spaces.prefix != TEXT_PREFIX_NEVER) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: Metaspace behind a normalizer is not supported", what);
    }
    return read_metaspace(step, spec);
}

static base_status read_strip(const json_t *step, text_spec *spec)
{
    static const char what[] = WHAT ": decoder Strip";
    base_status st = BASE_OK;
    int64_t n_start = 0;
    int64_t n_stop = 0;

    BASE_TRY(st, out, want_text(step, what, "content", " "));
    BASE_TRY(st, out, base_json_get_int(step, what, "start", true, 0, 1, &n_start));
    BASE_TRY(st, out, base_json_get_int(step, what, "stop", true, 0, 0, &n_stop));
    spec->spaces.strip = n_start == 1;
out:
    return st;
}

/* The steps must be these, in this order: each sees what the one before it made. */
static base_status read_decoder(const json_t *step, text_spec *spec)
{
    static const char what[] = WHAT ": decoder";
    static const char *const names[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    const size_t n_names = sizeof names / sizeof names[0];
    const json_t *steps = json_object_get(step, "decoders");
    const size_t n = json_array_size(steps);
    base_status st = BASE_OK;

    for (size_t i = 0; i < n && i < n_names && st == BASE_OK; i++) {
        st = want_text(json_array_get(steps, i), what, "type", names[i]);
    }
    if (st == BASE_OK && n != n_names && n != n_names - 1) {
        st = BASE_FAIL(BASE_BAD_FILE,
                       "%s is not a Sequence of Replace, ByteFallback, Fuse and at most Strip",
                       what);
    }
    if (st == BASE_OK) {
        st = want_text(step, what, "type", "Sequence");
    }
    if (st == BASE_OK) {
        st = want_replace(json_array_get(steps, 0), WHAT ": decoder Replace", TEXT_SPACE_MARK, " ");
    }
    return st == BASE_OK && n == n_names ? read_strip(json_array_get(steps, 3), spec) : st;
}

base_status text_spec_read_spaces(text_spec *spec)
{
    base_status st = BASE_OK;
    const json_t *normalizer = text_step_find(spec, "normalizer");
    const json_t *pre_tokenizer = text_step_find(spec, "pre_tokenizer");
    if (normalizer != NULL) {
        BASE_TRY(
            st, out,
            text_steps_read(normalizer, WHAT ": normalizer", "normalizers", spec, read_normalizer));
    }
    BASE_TRY(st, out, read_pre_tokenizer(pre_tokenizer, spec));
    if (!spec->spaces.by_normalizer && pre_tokenizer == NULL) {
        st = BASE_FAIL(BASE_BAD_FILE,
                       WHAT ": normalizer: no Replace of ' ', and pre_tokenizer: no Metaspace");
        goto out;
    }
    BASE_TRY(st, out, read_decoder(text_step_find(spec, "decoder"), spec));
out:
    return st;
}
