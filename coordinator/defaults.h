/* coordinator/defaults.h - what a model's generation_config.json says where a request is silent.
 *
 * As Hugging Face reads it: without do_sample the model decodes greedily whatever temperature
 * stands beside it; with do_sample and no temperature, 1.  What changes results and is not known
 * here (beams, penalties of other kinds) is refused by name, unless it has its neutral value. */
#ifndef COORDINATOR_DEFAULTS_H
#define COORDINATOR_DEFAULTS_H

#include "base/status.h"
#include "base/view.h"
#include "proto/group_codec.h"
#include "proto/inference_codec.h"

#include <stdint.h>

#define COORD_DEFAULT_MAX_NEW_TOKENS 256

typedef struct coord_defaults {
    inference_sampling sampling; /* seed unused */
    int32_t max_new_tokens;
    int32_t eos_ids[GROUP_MAX_EOS_IDS];
    size_t n_eos_ids;
} coord_defaults;

/* Without a file (no bytes): greedy, nothing filtered, 256 tokens, no eos.
 * vocab_size bounds eos ids.  Errors: BAD_FILE (field, value, limit). */
BASE_MUST_CHECK base_status coord_defaults_parse(base_view generation_config_json,
                                                 int32_t vocab_size, coord_defaults *defaults_out);

/* Adds end-of-sequence ids that are not there yet.  Errors: BAD_FILE (too many). */
BASE_MUST_CHECK base_status coord_defaults_add_eos(coord_defaults *defaults, const int32_t *ids,
                                                   size_t n_ids);

/* The sampling of a request: its own fields where given, else the defaults.  seed is the request's
 * or 0. */
inference_sampling coord_defaults_apply(const coord_defaults *defaults,
                                        const inference_generate_request *request);

#endif /* COORDINATOR_DEFAULTS_H */
