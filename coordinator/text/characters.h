/* coordinator/text/characters.h - the symbols that SentencePiece-style merging starts from.
 *
 * A character that the vocabulary has is one symbol, any other one symbol for each of its bytes.
 *
 * Joints say where text may be cut before merging.  A merge joins two neighbours, of which the
 * left one ends in some symbol a and the right one begins with some symbol b; so if no merge of
 * the table has a left that can end in a and a right that can begin with b, no merge ever spans a
 * place between an a and a b, and what is on both sides merges alone as it would together.
 * Any number of threads may read. */
#ifndef COORDINATOR_TEXT_CHARACTERS_H
#define COORDINATOR_TEXT_CHARACTERS_H

#include "coordinator/text/bpe.h"
#include "coordinator/text/tokenizer_json.h"
#include "coordinator/text/utf8.h"

typedef struct text_characters {
    int32_t ascii[128]; /* -1: no symbol of its own */
    text_pairs others;  /* (code point, 0) -> id */
    text_pairs joints;  /* (symbol, symbol) -> 1 */
} text_characters;

/* byte_ids: the symbols of bytes.  Ended with text_characters_reset; so may be a zeroed one whose
 * others.mem and joints.mem are set.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_characters_init(text_characters *characters, const text_spec *spec,
                                                 const int32_t byte_ids[256]);
void text_characters_reset(text_characters *characters);

/* The byte that a token written as "<0x0A>" stands for, -1 if it is written otherwise. */
int text_byte_token_read(base_view written);

/* -1 if the character is written in bytes. */
static inline int32_t text_characters_id(const text_characters *characters, uint32_t code)
{
    if (code < 128) {
        return characters->ascii[code];
    }
    const uint64_t id = text_pairs_get(&characters->others, code, 0);
    return id == TEXT_PAIRS_NONE ? -1 : (int32_t)id;
}

/* False: no merge spans a place between these two symbols. */
static inline bool text_characters_may_join(const text_characters *characters, int32_t a, int32_t b)
{
    return text_pairs_get(&characters->joints, (uint32_t)a, (uint32_t)b) != TEXT_PAIRS_NONE;
}

/* The symbols of text (valid UTF-8) into ids_out, unless it is NULL; gives how many. */
size_t text_characters_split(const text_characters *characters, const int32_t byte_ids[256],
                             base_view text, int32_t *ids_out);

#endif /* COORDINATOR_TEXT_CHARACTERS_H */
