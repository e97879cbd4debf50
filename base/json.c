#include "base/json.h"

#include "base/alloc.h"
#include "base/file.h"

#include <inttypes.h>

base_status base_json_parse(base_view text, const char *what, json_t **root_out)
{
    json_error_t error;
    json_t *root = json_loadb(text.n_bytes > 0 ? text.data : "", text.n_bytes,
                              JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (root == NULL) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: line %d, column %d: %s", what, error.line,
                         error.column, error.text);
    }
    *root_out = root;
    return BASE_OK;
}

base_status base_json_read(const char *path, size_t max_bytes, json_t **root_out)
{
    char *bytes = NULL;
    size_t n_bytes = 0;
    base_status st = base_file_read(path, max_bytes, &base_heap, &bytes, &n_bytes);
    if (st == BASE_OK) {
        const base_view text = {bytes, n_bytes};
        st = base_json_parse(text, path, root_out);
    }
    base_heap.put(base_heap.ctx, bytes);
    return st;
}

void base_json_free(json_t *root)
{
    json_decref(root);
}

/* Finds a present, non-null field; *field_out is NULL when an optional one is absent. */
static base_status find(const json_t *obj, const char *what, const char *key, bool required,
                        const json_t **field_out)
{
    if (!json_is_object(obj)) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: not an object where field '%s' is looked up", what,
                         key);
    }
    const json_t *field = json_object_get(obj, key);
    if (field == NULL || json_is_null(field)) {
        if (required) {
            return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is missing", what, key);
        }
        field = NULL;
    }
    *field_out = field;
    return BASE_OK;
}

static base_status wrong_type(const char *what, const char *key, const char *want)
{
    return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is not %s", what, key, want);
}

base_status base_json_get_int(const json_t *obj, const char *what, const char *key, bool required,
                              int64_t low, int64_t high, int64_t *out)
{
    const json_t *field = NULL;
    base_status st = find(obj, what, key, required, &field);
    if (st != BASE_OK || field == NULL) {
        return st;
    }
    if (!json_is_integer(field)) {
        return wrong_type(what, key, "an integer");
    }
    const int64_t value = json_integer_value(field);
    if (value < low || value > high) {
        return BASE_FAIL(BASE_BAD_FILE,
                         "%s: field '%s' is %" PRId64 ", allowed %" PRId64 "..%" PRId64, what, key,
                         value, low, high);
    }
    *out = value;
    return BASE_OK;
}

base_status base_json_get_real(const json_t *obj, const char *what, const char *key, bool required,
                               double low, double high, double *out)
{
    const json_t *field = NULL;
    base_status st = find(obj, what, key, required, &field);
    if (st != BASE_OK || field == NULL) {
        return st;
    }
    if (!json_is_number(field)) {
        return wrong_type(what, key, "a number");
    }
    const double value = json_number_value(field);
    if (!(value >= low && value <= high)) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is %g, allowed %g..%g", what, key, value,
                         low, high);
    }
    *out = value;
    return BASE_OK;
}

base_status base_json_get_bool(const json_t *obj, const char *what, const char *key, bool required,
                               bool *out)
{
    const json_t *field = NULL;
    base_status st = find(obj, what, key, required, &field);
    if (st != BASE_OK || field == NULL) {
        return st;
    }
    if (!json_is_boolean(field)) {
        return wrong_type(what, key, "true or false");
    }
    *out = json_is_true(field);
    return BASE_OK;
}

base_status base_json_get_text(const json_t *obj, const char *what, const char *key, bool required,
                               base_view *out)
{
    const json_t *field = NULL;
    base_status st = find(obj, what, key, required, &field);
    if (st != BASE_OK || field == NULL) {
        return st;
    }
    if (!json_is_string(field)) {
        return wrong_type(what, key, "a string");
    }
    out->data = json_string_value(field);
    out->n_bytes = json_string_length(field);
    return BASE_OK;
}
