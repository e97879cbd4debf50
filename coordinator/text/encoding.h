/* coordinator/text/encoding.h - one call of text_encode: what its steps share. */
#ifndef COORDINATOR_TEXT_ENCODING_H
#define COORDINATOR_TEXT_ENCODING_H

#include "coordinator/text/added.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/pretokenize.h"
#include "coordinator/text/tokenizer.h"

typedef struct text_piece_cache text_piece_cache;

typedef struct text_encoding {
    const text_tokenizer *t;
    text_encode_options options;
    base_view text;
    text_ids *out;
    size_t n_before; /* ids that were in out before this call */
    text_cutter *cutter;
    text_bpe_scratch scratch;
    base_bytes normalized;
    text_piece_cache *cache; /* NULL for short texts */
    size_t cache_mask;
} text_encoding;

/* Appends ids.  Errors: OUT_OF_RANGE (max_ids), NO_MEMORY. */
BASE_MUST_CHECK base_status text_encoding_emit(text_encoding *e, const int32_t *ids, size_t n_ids);
/* Appends the ids of single bytes, which are not valid UTF-8 and join no neighbour. */
BASE_MUST_CHECK base_status text_encoding_emit_bytes(text_encoding *e, base_view bytes);
/* Merges one piece and appends its ids; a text_piece_fn. */
BASE_MUST_CHECK base_status text_encoding_piece(void *encoding, base_view piece);
/* Gives each part of text between added tokens to encode_part, and emits the added tokens. */
BASE_MUST_CHECK base_status text_encoding_split(text_encoding *e, const text_added *added,
                                                base_view text,
                                                base_status (*encode_part)(text_encoding *e,
                                                                           base_view part));

#endif /* COORDINATOR_TEXT_ENCODING_H */
