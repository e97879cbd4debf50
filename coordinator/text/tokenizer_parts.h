/* coordinator/text/tokenizer_parts.h - what a text_tokenizer is made of; for the files that
 * are its implementation. */
#ifndef COORDINATOR_TEXT_TOKENIZER_PARTS_H
#define COORDINATOR_TEXT_TOKENIZER_PARTS_H

#include "coordinator/text/added.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/characters.h"
#include "coordinator/text/family.h"
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/tokenizer_json.h"
#include "coordinator/text/vocab.h"

struct text_tokenizer {
    base_alloc mem;
    const text_family *family;
    text_vocab vocab;
    text_bpe bpe;
    text_added raw;                  /* added tokens that are looked for in the text as it comes */
    text_added normalized;           /* and in what normalization makes of it */
    text_spaces spaces;              /* SentencePiece-style; zero in the other family */
    text_characters characters;      /* the same */
    text_pretokenizer *pretokenizer; /* byte-level, down to ignore_merges; idle in the other */
    bool nfc;
    bool ignore_merges;
    text_spec_template front;
    text_spec_template behind;
};

/* Errors: BAD_INPUT (no token has this id, which stands at index). */
BASE_MUST_CHECK base_status text_tokenizer_check_id(const text_tokenizer *t, int32_t id,
                                                    size_t index);

#endif /* COORDINATOR_TEXT_TOKENIZER_PARTS_H */
