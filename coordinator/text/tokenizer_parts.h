/* coordinator/text/tokenizer_parts.h - what a text_tokenizer is made of; for tokenizer.c and
 * encode.c only. */
#ifndef COORDINATOR_TEXT_TOKENIZER_PARTS_H
#define COORDINATOR_TEXT_TOKENIZER_PARTS_H

#include "coordinator/text/added.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/tokenizer_json.h"
#include "coordinator/text/vocab.h"

struct text_tokenizer {
    base_alloc mem;
    text_vocab vocab;
    text_bpe bpe;
    text_added raw;        /* added tokens that are looked for in the text as it comes */
    text_added normalized; /* and in what normalization makes of it */
    text_pretokenizer *pretokenizer;
    bool nfc;
    bool ignore_merges;
    text_spec_template front;
    text_spec_template behind;
};

#endif /* COORDINATOR_TEXT_TOKENIZER_PARTS_H */
