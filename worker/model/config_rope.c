#include "worker/model/config_parts.h"

#include <string.h>

#define DEFAULT_THETA 10000.0 /* what transformers assumes when the field is absent */
#define MAX_THETA     1e15

/* One of the two objects that transformers 4 and 5 describe rotary embeddings with.  NULL is
 * nothing. */
static base_status object_check(const json_t *rope, const char *what)
{
    if (rope == NULL || json_is_null(rope)) {
        return BASE_OK;
    }
    base_view type = {NULL, 0};
    base_status st = base_json_get_text(rope, what, "rope_type", false, &type);
    if (st == BASE_OK && type.data == NULL) {
        st = base_json_get_text(rope, what, "type", false, &type);
    }
    if (st != BASE_OK) {
        return st;
    }
    if (type.data == NULL || strcmp(type.data, "default") != 0) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'rope_type' is '%.64s', supported: 'default'",
                         what, type.data == NULL ? "" : type.data);
    }
    double factor = 1.0;
    return base_json_get_real(rope, what, "partial_rotary_factor", false, 1.0, 1.0, &factor);
}

base_status config_rope_parse(json_t *root, model_config *config)
{
    static const char in_parameters[] = CONFIG_WHAT ": rope_parameters";
    const json_t *parameters = json_object_get(root, "rope_parameters");
    double outer = 0.0;
    double inner = 0.0;
    base_status st =
        object_check(json_object_get(root, "rope_scaling"), CONFIG_WHAT ": rope_scaling");
    if (st == BASE_OK) {
        st = object_check(parameters, in_parameters);
    }
    if (st == BASE_OK) {
        st = base_json_get_real(root, CONFIG_WHAT, "rope_theta", false, 1.0, MAX_THETA, &outer);
    }
    if (st == BASE_OK && json_is_object(parameters)) {
        st = base_json_get_real(parameters, in_parameters, "rope_theta", false, 1.0, MAX_THETA,
                                &inner);
    }
    if (st != BASE_OK) {
        return st;
    }
    if (inner > 0.0 && outer > 0.0 && inner != outer) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'rope_theta' is %g, in rope_parameters it is %g",
                         CONFIG_WHAT, outer, inner);
    }
    config->rope_theta = inner > 0.0 ? inner : outer > 0.0 ? outer : DEFAULT_THETA;
    return BASE_OK;
}
