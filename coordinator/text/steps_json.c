#include "coordinator/text/steps_json.h"

const json_t *text_step_find(const text_spec *spec, const char *key)
{
    const json_t *step = json_object_get(spec->root, key);
    return json_is_null(step) ? NULL : step;
}

bool text_step_is(base_view type, const char *name)
{
    return base_view_equal(type, base_view_of(name));
}

base_status text_step_refuse(const char *what, base_view type)
{
    return BASE_FAIL(BASE_BAD_FILE, "%s: type '%.*s' is not supported", what, (int)type.n_bytes,
                     type.data);
}

base_status text_steps_read(const json_t *step, const char *what, const char *list, text_spec *spec,
                            text_step_fn read)
{
    base_view type;
    base_status st = base_json_get_text(step, what, "type", true, &type);
    if (st != BASE_OK) {
        return st;
    }
    if (!text_step_is(type, "Sequence")) {
        return read(step, type, spec);
    }
    const json_t *steps = json_object_get(step, list);
    if (!json_is_array(steps)) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field '%s' is not an array", what, list);
    }
    for (size_t i = 0; i < json_array_size(steps) && st == BASE_OK; i++) {
        const json_t *one = json_array_get(steps, i);
        st = base_json_get_text(one, what, "type", true, &type);
        if (st == BASE_OK) {
            st = read(one, type, spec);
        }
    }
    return st;
}
