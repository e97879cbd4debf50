/* coordinator/text/steps_json.h - the lists of steps in a tokenizer.json, each with a "type". */
#ifndef COORDINATOR_TEXT_STEPS_JSON_H
#define COORDINATOR_TEXT_STEPS_JSON_H

#include "coordinator/text/tokenizer_json.h"

typedef base_status (*text_step_fn)(const json_t *step, base_view type, text_spec *spec);

/* The step in field key of the file; NULL if it is absent or null. */
const json_t *text_step_find(const text_spec *spec, const char *key);
/* Calls read for step, or for each step of the array `list` if it is a Sequence.  Sequences do
 * not nest.  Errors: BAD_FILE, or read's. */
BASE_MUST_CHECK base_status text_steps_read(const json_t *step, const char *what, const char *list,
                                            text_spec *spec, text_step_fn read);
bool text_step_is(base_view type, const char *name);
/* Gives BAD_FILE: the type is not supported. */
BASE_MUST_CHECK base_status text_step_refuse(const char *what, base_view type);

#endif /* COORDINATOR_TEXT_STEPS_JSON_H */
