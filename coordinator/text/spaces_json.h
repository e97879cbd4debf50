/* coordinator/text/spaces_json.h - normalizer, pre_tokenizer and decoder of a SentencePiece-style
 * tokenizer.json.  A part of text_spec_read_processors. */
#ifndef COORDINATOR_TEXT_SPACES_JSON_H
#define COORDINATOR_TEXT_SPACES_JSON_H

#include "coordinator/text/tokenizer_json.h"

/* Sets spaces of a spec whose root is set.  Errors: BAD_FILE (field and reason). */
BASE_MUST_CHECK base_status text_spec_read_spaces(text_spec *spec);

#endif /* COORDINATOR_TEXT_SPACES_JSON_H */
