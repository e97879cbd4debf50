#include "base/log.h"
#include "worker/model/config_parts.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef enum rule {
    UNKNOWN,
    READ,
    IGNORED,
    UNLESS_NULL,
    UNLESS_ONE,
} rule;

static const struct {
    const char *key;
    rule rule;
} known[] = {
#define X(key, rule) {key, rule},
#include "worker/model/config_known.def"
#undef X
};

static rule rule_of(const char *key)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(key, known[i].key) == 0) {
            return known[i].rule;
        }
    }
    return UNKNOWN;
}

static bool is_unset(const json_t *value)
{
    return json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool is_one(const json_t *value)
{
    return json_is_null(value) || (json_is_number(value) && json_number_value(value) == 1.0);
}

void config_value_text(const json_t *value, char *text_out, size_t n_bytes)
{
    const size_t n = json_dumpb(value, text_out, n_bytes - 1, JSON_ENCODE_ANY | JSON_COMPACT);
    text_out[n < n_bytes - 1 ? n : n_bytes - 1] = '\0';
}

base_status config_known_check(json_t *root)
{
    char unknown[512] = "";
    size_t n_unknown_bytes = 0;
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        const rule r = rule_of(key);
        if (r == UNLESS_NULL && !is_unset(value)) {
            char text[64];
            config_value_text(value, text, sizeof text);
            return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is %s, supported: null or false",
                             CONFIG_WHAT, key, text);
        }
        if (r == UNLESS_ONE && !is_one(value)) {
            char text[64];
            config_value_text(value, text, sizeof text);
            return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is %s, supported: 1", CONFIG_WHAT, key,
                             text);
        }
        if (r == UNKNOWN && n_unknown_bytes < sizeof unknown) {
            const int n = snprintf(unknown + n_unknown_bytes, sizeof unknown - n_unknown_bytes,
                                   "%s%.64s", n_unknown_bytes > 0 ? ", " : "", key);
            n_unknown_bytes += (size_t)n;
        }
    }
    if (n_unknown_bytes > 0) {
        BASE_WARN("%s: fields not known here are ignored: %s", CONFIG_WHAT, unknown);
    }
    return BASE_OK;
}
