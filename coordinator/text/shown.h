/* coordinator/text/shown.h - ids that come one by one, as text that may be shown.
 *
 * What comes out is whole characters: the text that decoding all ids at once gives, with U+FFFD
 * for bytes that are none.  Byte-level: one for each maximal invalid run, and a character comes
 * out as soon as it is whole.  SentencePiece-style: one for each byte of a run of byte tokens that
 * is not valid as a whole, so that a run comes out when a token of another kind follows.
 * Threads.  One at a time. */
#ifndef COORDINATOR_TEXT_SHOWN_H
#define COORDINATOR_TEXT_SHOWN_H

#include "coordinator/text/tokenizer.h"

typedef struct text_shown {
    const text_tokenizer *tokenizer;
    bool skip_special;
    bool at_start;   /* nothing came out yet */
    base_bytes open; /* bytes that are not decided */
} text_shown;

/* Allocates nothing.  tokenizer is borrowed.  Ended with text_shown_reset; so may be one whose
 * open.mem is set and the rest zero. */
void text_shown_init(text_shown *shown, const text_tokenizer *tokenizer, bool skip_special,
                     const base_alloc *mem);
void text_shown_reset(text_shown *shown);

/* Errors: BAD_INPUT (an id outside the vocabulary; shown is as before), OUT_OF_RANGE (2 GiB wait,
 * or out is full) and NO_MEMORY, after which shown is only to be reset. */
BASE_MUST_CHECK base_status text_shown_add(text_shown *shown, int32_t id, base_bytes *out);
/* The ids end here. */
BASE_MUST_CHECK base_status text_shown_finish(text_shown *shown, base_bytes *out);

#endif /* COORDINATOR_TEXT_SHOWN_H */
