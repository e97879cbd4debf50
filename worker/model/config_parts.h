/* worker/model/config_parts.h - the parts of reading config.json, each in a file of its own. */
#ifndef WORKER_MODEL_CONFIG_PARTS_H
#define WORKER_MODEL_CONFIG_PARTS_H

#include "base/json.h"
#include "base/status.h"
#include "worker/model/config.h"

#define CONFIG_WHAT        "config.json" /* the source's name in errors */
#define CONFIG_MAX_VOCAB   (1 << 20)
#define CONFIG_MAX_FFN     (1 << 20)
#define CONFIG_MAX_HEADS   1024
#define CONFIG_MAX_CONTEXT INT32_MAX /* kern_rope's positions */

/* Refuses what config_known.def says; unknown fields become one warning.
 * Errors: BAD_FILE (field, value, what is supported). */
BASE_MUST_CHECK base_status config_known_check(json_t *root);

/* The value of a field for an error text: JSON, cut to what fits. */
void config_value_text(const json_t *value, char *text_out, size_t n_bytes);

/* Reads rope_theta, rope_scaling (transformers 4) and rope_parameters (5) into config, and may raise
 * max_context.  Errors: BAD_FILE. */
BASE_MUST_CHECK base_status config_rope_parse(json_t *root, model_config *config);
/* Replaces the scaling: "none" or JSON.  Errors: BAD_FILE, NO_MEMORY. */
BASE_MUST_CHECK base_status config_rope_override(base_view text, model_config *config);

#endif /* WORKER_MODEL_CONFIG_PARTS_H */
