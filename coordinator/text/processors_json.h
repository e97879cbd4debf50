/* coordinator/text/processors_json.h - the steps around BPE in a tokenizer.json: normalizer,
 * pre_tokenizer, post_processor and decoder.  A part of text_spec_read. */
#ifndef COORDINATOR_TEXT_PROCESSORS_JSON_H
#define COORDINATOR_TEXT_PROCESSORS_JSON_H

#include "coordinator/text/tokenizer_json.h"

/* Sets nfc and patterns or spaces, and front and behind, of a spec whose root, n_ids, tokens, added
 * and byte_fallback are set.
 * Errors: BAD_FILE (field and reason). */
BASE_MUST_CHECK base_status text_spec_read_processors(text_spec *spec);

#endif /* COORDINATOR_TEXT_PROCESSORS_JSON_H */
