/* coordinator/text/vocab.h - what each token id stands for, and back.
 *
 * Tokens are stored as the bytes that they decode to; those of a byte-level file that are not
 * written in the byte alphabet, and its added tokens, as they are written.
 * Any number of threads may read; adding is for one thread. */
#ifndef COORDINATOR_TEXT_VOCAB_H
#define COORDINATOR_TEXT_VOCAB_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "base/view.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum text_token_kind {
    TEXT_TOKEN_NONE, /* no token has this id */
    TEXT_TOKEN_ORDINARY,
    TEXT_TOKEN_OPAQUE, /* in the file's vocabulary, but no text leads to it */
    TEXT_TOKEN_BYTE,   /* one byte of a character that has no token */
    TEXT_TOKEN_ADDED,
    TEXT_TOKEN_SPECIAL, /* added, and special */
} text_token_kind;

typedef struct text_vocab_token {
    size_t begin; /* in blob */
    uint32_t n_bytes;
    text_token_kind kind;
} text_vocab_token;

typedef struct text_vocab {
    text_vocab_token *tokens; /* [n_ids] */
    int32_t n_ids;
    base_bytes blob;
    int32_t *slots; /* hash table of ids, -1 is free; without opaque tokens */
    size_t mask;
    base_alloc mem;
} text_vocab;

/* Room for ids 0..n_ids-1, all of them TEXT_TOKEN_NONE.  Ended with text_vocab_reset; so may be
 * a zeroed text_vocab whose mem and blob are set up.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_vocab_init(text_vocab *vocab, int32_t n_ids,
                                            const base_alloc *mem);
void text_vocab_reset(text_vocab *vocab);

/* Gives a still unused id its bytes.  When two tokens have the same bytes, find gives the one that
 * was put first.  Errors: OUT_OF_RANGE (4 GiB of bytes), NO_MEMORY. */
BASE_MUST_CHECK base_status text_vocab_put(text_vocab *vocab, int32_t id, text_token_kind kind,
                                           base_view bytes);

/* -1 if there is none. */
int32_t text_vocab_find(const text_vocab *vocab, base_view bytes);

/* id is in [0, n_ids). */
static inline base_view text_vocab_bytes(const text_vocab *vocab, int32_t id)
{
    const text_vocab_token *t = &vocab->tokens[id];
    const base_view v = {t->n_bytes == 0 ? NULL : vocab->blob.data + t->begin, t->n_bytes};
    return v;
}

/* A well mixed hash of bytes. */
uint64_t text_bytes_hash(base_view bytes);

/* Turns a token as written ("\u0120the") into bytes (" the"), appended to *bytes_out.
 * *is_written_out is false when a character is not of the byte alphabet; nothing is added then.
 * Errors: OUT_OF_RANGE (bytes_out is full), NO_MEMORY. */
BASE_MUST_CHECK base_status text_alphabet_read(base_view written, base_bytes *bytes_out,
                                               bool *is_written_out);

#endif /* COORDINATOR_TEXT_VOCAB_H */
