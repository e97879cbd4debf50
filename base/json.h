/* base/json.h - reading JSON from outside, over jansson.
 *
 * What jansson leaves open is closed here: size, NUL bytes, trailing bytes, and errors that
 * say which file and which field.  Values returned are borrowed from the root, which the
 * caller ends with base_json_free.  Writers use jansson itself (base_json is json_t). */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/status.h"
#include "base/view.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Parses one JSON value.  what names the source in errors ("config.json").
 * Errors: BAD_FILE with line and reason (malformed, duplicate keys, depth above 2048). */
BASE_MUST_CHECK base_status base_json_parse(base_view text, const char *what, json_t **root_out);
/* The same for a file of at most max_bytes.  Errors: also NOT_FOUND, IO. */
BASE_MUST_CHECK base_status base_json_read(const char *path, size_t max_bytes, json_t **root_out);
void base_json_free(json_t *root); /* NULL is allowed */

/* Field `key` of object `obj`.  A field that is absent or null leaves *out alone when
 * required is false and is BAD_FILE when it is true; one of the wrong type or outside
 * [low, high] is BAD_FILE naming what, key, value and limit. */
BASE_MUST_CHECK base_status base_json_get_int(const json_t *obj, const char *what, const char *key,
                                              bool required, int64_t low, int64_t high,
                                              int64_t *out);
BASE_MUST_CHECK base_status base_json_get_real(const json_t *obj, const char *what, const char *key,
                                               bool required, double low, double high, double *out);
BASE_MUST_CHECK base_status base_json_get_bool(const json_t *obj, const char *what, const char *key,
                                               bool required, bool *out);
/* The view points into obj. */
BASE_MUST_CHECK base_status base_json_get_text(const json_t *obj, const char *what, const char *key,
                                               bool required, base_view *out);

#endif /* BASE_JSON_H */
