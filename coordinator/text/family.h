/* coordinator/text/family.h - what differs between byte-level and SentencePiece-style tokenizers.
 *
 * Everything else (added tokens, merging, the cache of pieces, templates, stop strings) is the
 * same for both and lives outside. */
#ifndef COORDINATOR_TEXT_FAMILY_H
#define COORDINATOR_TEXT_FAMILY_H

#include "coordinator/text/encoding.h"
#include "coordinator/text/vocab.h"

typedef struct text_token_meaning {
    text_token_kind kind; /* ORDINARY, OPAQUE or BYTE */
    int byte;             /* that merging starts from for this byte; -1 */
} text_token_meaning;

typedef struct text_family {
    /* What a token of the vocabulary stands for: bytes are appended to *bytes_out.
     * Errors: OUT_OF_RANGE (bytes_out is full), NO_MEMORY. */
    base_status (*read_token)(base_view written, base_bytes *bytes_out,
                              text_token_meaning *meaning_out);
    /* The same for an added token. */
    base_status (*read_added)(base_view written, base_bytes *bytes_out,
                              text_token_meaning *meaning_out);
    /* Appends an added token as it looks after normalization.  Errors: as read_token. */
    base_status (*normalize_added)(const text_tokenizer *t, base_view token, base_bytes *out);
    /* Emits the ids of a part of the text that is not empty and holds no added token that is
     * looked for before normalization.  Errors: as text_encode. */
    base_status (*encode)(text_encoding *e, base_view part);
    /* The ids of one piece; *ids_out points into scratch.  Errors: NO_MEMORY. */
    base_status (*merge)(const text_tokenizer *t, base_view piece, text_bpe_scratch *scratch,
                         const int32_t **ids_out, size_t *n_ids_out);
    /* Appends the characters that are decided with one more token to *out; bytes that are not
     * wait in *open.  Errors: OUT_OF_RANGE (a buffer is full), NO_MEMORY. */
    base_status (*show)(const text_tokenizer *t, int32_t id, base_bytes *open, base_bytes *out);
    /* The same, with no more tokens to come. */
    base_status (*show_rest)(base_bytes *open, base_bytes *out);
} text_family;

extern const text_family text_family_byte_level;
extern const text_family text_family_sentencepiece;

#endif /* COORDINATOR_TEXT_FAMILY_H */
