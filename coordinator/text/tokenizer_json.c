#include "coordinator/text/tokenizer_json.h"

#include "coordinator/text/processors_json.h"

#include <stdio.h>

#define WHAT TEXT_JSON_WHAT

static base_status refuse_true(const json_t *obj, const char *what, const char *key)
{
    bool value = false;
    const base_status st = base_json_get_bool(obj, what, key, false, &value);
    if (st == BASE_OK && value) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' true is not supported", what, key);
    }
    return st;
}

static base_status refuse_text(const json_t *obj, const char *what, const char *key)
{
    base_view value = {NULL, 0};
    const base_status st = base_json_get_text(obj, what, key, false, &value);
    if (st == BASE_OK && value.n_bytes > 0) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is '%.*s', only empty is supported", what,
                         key, (int)value.n_bytes, value.data);
    }
    return st;
}

static base_status read_model_options(const json_t *model, text_spec *spec)
{
    static const char what[] = WHAT ": model";
    base_status st = BASE_OK;
    base_view type = {"BPE", 3}; /* old files leave it out */
    double dropout = 0;

    BASE_TRY(st, out, base_json_get_text(model, what, "type", false, &type));
    if (!base_view_equal(type, base_view_of("BPE"))) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: field 'type' is '%.*s', only BPE is supported", what,
                       (int)type.n_bytes, type.data);
        goto out;
    }
    BASE_TRY(st, out, base_json_get_real(model, what, "dropout", false, 0, 0, &dropout));
    BASE_TRY(st, out,
             base_json_get_bool(model, what, "byte_fallback", false, &spec->byte_fallback));
    BASE_TRY(st, out, refuse_text(model, what, "continuing_subword_prefix"));
    BASE_TRY(st, out, refuse_text(model, what, "end_of_word_suffix"));
    BASE_TRY(st, out,
             base_json_get_bool(model, what, "ignore_merges", false, &spec->ignore_merges));
    if (spec->byte_fallback && spec->ignore_merges) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: field 'ignore_merges' true with byte_fallback", what);
        goto out;
    }
    /* unk_token and fuse_unk never act: every byte has a token, which create checks. */
out:
    return st;
}

static base_status read_vocab_id(const char *key, const json_t *value, int32_t *id_out)
{
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= TEXT_MAX_VOCAB) {
        return BASE_FAIL(BASE_BAD_FILE, WHAT ": model.vocab: id of '%s' is not an integer in 0..%d",
                         key, TEXT_MAX_VOCAB - 1);
    }
    *id_out = (int32_t)id;
    return BASE_OK;
}

/* Sets n_ids so that it covers the vocabulary and the added tokens, which are read before. */
static base_status read_vocab(json_t *vocab, text_spec *spec)
{
    base_status st = BASE_OK;
    const char *key;
    json_t *value;
    int32_t id = 0;
    int32_t highest = -1;

    if (!json_is_object(vocab)) {
        st = BASE_FAIL(BASE_BAD_FILE, WHAT ": model: field 'vocab' is not an object");
        goto out;
    }
    json_object_foreach(vocab, key, value)
    {
        BASE_TRY(st, out, read_vocab_id(key, value, &id));
        highest = id > highest ? id : highest;
    }
    for (size_t i = 0; i < spec->n_added; i++) {
        highest = spec->added[i].id > highest ? spec->added[i].id : highest;
    }
    if (highest < 0) {
        st = BASE_FAIL(BASE_BAD_FILE, WHAT ": model: field 'vocab' is empty");
        goto out;
    }
    spec->n_ids = highest + 1;
    spec->tokens = spec->mem.get(spec->mem.ctx, (size_t)spec->n_ids * sizeof *spec->tokens);
    if (spec->tokens == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "vocabulary of %d tokens", spec->n_ids);
        goto out;
    }
    json_object_foreach(vocab, key, value)
    {
        BASE_TRY(st, out, read_vocab_id(key, value, &id));
        if (spec->tokens[id].data != NULL) {
            st = BASE_FAIL(BASE_BAD_FILE, WHAT ": model.vocab: '%s' and '%s' both have id %d",
                           spec->tokens[id].data, key, id);
            goto out;
        }
        spec->tokens[id] = base_view_of(key);
    }
out:
    return st;
}

/* The two halves of a merge, which old files write as "a b" and newer ones as ["a", "b"]. */
static bool split_merge(const json_t *merge, base_view *left_out, base_view *right_out)
{
    if (json_is_array(merge)) {
        const json_t *left = json_array_get(merge, 0);
        const json_t *right = json_array_get(merge, 1);
        *left_out = (base_view){json_string_value(left), json_string_length(left)};
        *right_out = (base_view){json_string_value(right), json_string_length(right)};
        return json_array_size(merge) == 2 && left_out->n_bytes > 0 && right_out->n_bytes > 0;
    }
    const char *text = json_string_value(merge);
    const size_t n_bytes = json_string_length(merge);
    const char *space = n_bytes > 0 ? memchr(text, ' ', n_bytes) : NULL;
    if (space == NULL) {
        return false;
    }
    *left_out = (base_view){text, (size_t)(space - text)};
    *right_out = (base_view){space + 1, n_bytes - left_out->n_bytes - 1};
    return left_out->n_bytes > 0 && right_out->n_bytes > 0 &&
           memchr(right_out->data, ' ', right_out->n_bytes) == NULL;
}

static base_status find_id(const json_t *vocab, base_view token, size_t rank, int32_t *id_out)
{
    const json_t *id = json_object_getn(vocab, token.data, token.n_bytes);
    if (id == NULL) {
        return BASE_FAIL(BASE_BAD_FILE, WHAT ": model.merges[%zu]: '%.*s' is not in the vocabulary",
                         rank, (int)token.n_bytes, token.data);
    }
    *id_out = (int32_t)json_integer_value(id);
    return BASE_OK;
}

static base_status read_merges(const json_t *vocab, const json_t *merges, text_spec *spec)
{
    base_status st = BASE_OK;
    base_bytes joined;

    base_bytes_init(&joined, TEXT_MAX_TOKENIZER_BYTES, &spec->mem);
    if (!json_is_array(merges)) {
        st = BASE_FAIL(BASE_BAD_FILE, WHAT ": model: field 'merges' is not an array");
        goto out;
    }
    const size_t n = json_array_size(merges);
    spec->merges = spec->mem.get(spec->mem.ctx, (n + 1) * sizeof *spec->merges);
    if (spec->merges == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%zu merges", n);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        base_view left;
        base_view right;
        text_bpe_merge *m = &spec->merges[i];
        if (!split_merge(json_array_get(merges, i), &left, &right)) {
            st = BASE_FAIL(BASE_BAD_FILE, WHAT ": model.merges[%zu] is not a pair of tokens", i);
            goto out;
        }
        base_bytes_drop_front(&joined, joined.n_bytes);
        BASE_TRY(st, out, base_bytes_add(&joined, left.data, left.n_bytes));
        BASE_TRY(st, out, base_bytes_add(&joined, right.data, right.n_bytes));
        BASE_TRY(st, out, find_id(vocab, left, i, &m->left));
        BASE_TRY(st, out, find_id(vocab, right, i, &m->right));
        BASE_TRY(st, out, find_id(vocab, base_bytes_view(&joined), i, &m->joined));
    }
    spec->n_merges = n;
out:
    base_bytes_reset(&joined);
    return st;
}

static base_status read_added_token(const json_t *token, const char *what, text_spec_added *out)
{
    base_status st = BASE_OK;
    int64_t id = 0;
    text_spec_added a = {.normalized = true};

    BASE_TRY(st, out, base_json_get_text(token, what, "content", true, &a.text));
    BASE_TRY(st, out, base_json_get_int(token, what, "id", true, 0, TEXT_MAX_VOCAB - 1, &id));
    BASE_TRY(st, out, base_json_get_bool(token, what, "special", false, &a.special));
    BASE_TRY(st, out, refuse_true(token, what, "single_word"));
    BASE_TRY(st, out, refuse_true(token, what, "lstrip"));
    BASE_TRY(st, out, refuse_true(token, what, "rstrip"));
    a.normalized = !a.special; /* what the format takes when the field is absent */
    BASE_TRY(st, out, base_json_get_bool(token, what, "normalized", false, &a.normalized));
    if (a.text.n_bytes < 1 || a.text.n_bytes > TEXT_MAX_ADDED_BYTES) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: field 'content' has %zu bytes, allowed 1..%d", what,
                       a.text.n_bytes, TEXT_MAX_ADDED_BYTES);
        goto out;
    }
    a.id = (int32_t)id;
    *out = a;
out:
    return st;
}

static base_status read_added(const json_t *added, text_spec *spec)
{
    if (added == NULL || json_is_null(added)) {
        return BASE_OK;
    }
    const size_t n = json_array_size(added);
    if (!json_is_array(added) || n > TEXT_MAX_ADDED) {
        return BASE_FAIL(BASE_BAD_FILE, WHAT ": field 'added_tokens' is not an array of 0..%d",
                         TEXT_MAX_ADDED);
    }
    spec->added = spec->mem.get(spec->mem.ctx, (n + 1) * sizeof *spec->added);
    if (spec->added == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%zu added tokens", n);
    }
    for (size_t i = 0; i < n; i++) {
        char what[64];
        (void)snprintf(what, sizeof what, WHAT ": added_tokens[%zu]", i);
        const base_status st = read_added_token(json_array_get(added, i), what, &spec->added[i]);
        if (st != BASE_OK) {
            return st;
        }
        spec->n_added = i + 1;
    }
    return BASE_OK;
}

/* An added token may stand in the vocabulary as well, but then as the same one. */
static base_status check_added(const json_t *vocab, const text_spec *spec)
{
    for (size_t i = 0; i < spec->n_added; i++) {
        const text_spec_added *a = &spec->added[i];
        const base_view there = spec->tokens[a->id];
        const json_t *id = json_object_getn(vocab, a->text.data, a->text.n_bytes);
        if ((there.data != NULL && !base_view_equal(there, a->text)) ||
            (id != NULL && json_integer_value(id) != a->id)) {
            return BASE_FAIL(BASE_BAD_FILE,
                             WHAT ": added_tokens[%zu]: '%.*s' with id %d contradicts model.vocab",
                             i, (int)a->text.n_bytes, a->text.data, a->id);
        }
    }
    return BASE_OK;
}

base_status text_spec_read(base_view tokenizer_json, const base_alloc *mem, text_spec *spec_out)
{
    base_status st = BASE_OK;
    text_spec spec = {.mem = *mem};

    if (tokenizer_json.n_bytes > TEXT_MAX_TOKENIZER_BYTES) {
        return BASE_FAIL(BASE_BAD_FILE, WHAT ": %zu bytes, allowed %zu", tokenizer_json.n_bytes,
                         TEXT_MAX_TOKENIZER_BYTES);
    }
    BASE_TRY(st, out, base_json_parse(tokenizer_json, WHAT, &spec.root));
    const json_t *model = json_object_get(spec.root, "model");
    if (!json_is_object(model)) {
        st = BASE_FAIL(BASE_BAD_FILE, WHAT ": field 'model' is not an object");
        goto out;
    }
    json_t *vocab = json_object_get(model, "vocab");
    BASE_TRY(st, out, read_model_options(model, &spec));
    BASE_TRY(st, out, read_added(json_object_get(spec.root, "added_tokens"), &spec));
    BASE_TRY(st, out, read_vocab(vocab, &spec));
    BASE_TRY(st, out, check_added(vocab, &spec));
    BASE_TRY(st, out, read_merges(vocab, json_object_get(model, "merges"), &spec));
    BASE_TRY(st, out, text_spec_read_processors(&spec));
    *spec_out = spec;
    return BASE_OK;

out:
    text_spec_reset(&spec);
    return st;
}

void text_spec_reset(text_spec *spec)
{
    spec->mem.put(spec->mem.ctx, spec->tokens);
    spec->mem.put(spec->mem.ctx, spec->merges);
    spec->mem.put(spec->mem.ctx, spec->added);
    base_json_free(spec->root);
    *spec = (text_spec){.mem = spec->mem};
}
