/* coordinator/text/tokenizer_json.h - what a tokenizer.json says, as a plain struct.
 *
 * Pure: bytes in, struct out; the bytes are untrusted.  Everything that would change ids and is
 * not in the struct is refused by the name of its field.  "truncation" and "padding" are not
 * read: they are settings for batches, not part of what a text means.
 *
 * Promise, for every text_spec that was returned:
 *   1 <= n_ids <= TEXT_MAX_VOCAB; every id anywhere in it is in [0, n_ids) and has a token;
 *   no two tokens of the vocabulary have the same id;
 *   joined of a merge is written as left followed by right, neither of them empty;
 *   an added token has 1..TEXT_MAX_ADDED_BYTES bytes, and if its text or its id is also in the
 *   vocabulary, then both are and belong together. */
#ifndef COORDINATOR_TEXT_TOKENIZER_JSON_H
#define COORDINATOR_TEXT_TOKENIZER_JSON_H

#include "base/json.h"
#include "coordinator/text/added.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/spaces.h"
#include "coordinator/text/tokenizer.h"

#define TEXT_JSON_WHAT "tokenizer.json" /* what errors start with */

#define TEXT_MAX_TEMPLATE_IDS 16 /* in front of a text, and behind it */

typedef struct text_spec_added {
    base_view text;
    int32_t id;
    bool special;
    bool normalized; /* looked for after normalization, not before */
} text_spec_added;

typedef struct text_spec_template {
    int32_t ids[TEXT_MAX_TEMPLATE_IDS];
    size_t n_ids;
} text_spec_template;

typedef struct text_spec {
    json_t *root; /* the views below point into it */
    int32_t n_ids;
    base_view *tokens; /* [n_ids] of the vocabulary as written; data is NULL where there is none */
    text_bpe_merge *merges; /* in order of rank */
    size_t n_merges;
    text_spec_added *added;
    size_t n_added;
    bool byte_fallback; /* SentencePiece-style, else byte-level */
    text_spaces spaces; /* of the former; then come fields of the latter */
    bool nfc;
    bool ignore_merges; /* a piece that is a token as a whole is not merged */
    text_pretokenizer_pattern patterns[TEXT_MAX_PATTERNS];
    size_t n_patterns;
    text_spec_template front;
    text_spec_template behind;
    base_alloc mem;
} text_spec;

/* Ended with text_spec_reset.  Errors: BAD_FILE (field and reason), NO_MEMORY. */
BASE_MUST_CHECK base_status text_spec_read(base_view tokenizer_json, const base_alloc *mem,
                                           text_spec *spec_out);
void text_spec_reset(text_spec *spec);

#endif /* COORDINATOR_TEXT_TOKENIZER_JSON_H */
