/* coordinator/text/tokenizer.h - text to token ids and back: BPE as in tokenizer.json.
 *
 * Made from the bytes of a Hugging Face tokenizer.json whose model is BPE of one of two families:
 *   byte-level (GPT-2's byte alphabet; Llama 3, Qwen): an NFC normalizer or none; a pre_tokenizer
 *     of Split (regex, behavior Isolated) and ByteLevel (use_regex true or false).
 *   SentencePiece-style (byte_fallback true, tokens "<0x00>".."<0xFF>"; Llama 2, Mistral): a
 *     normalizer of Replace (" " by U+2581), with or without Prepend of U+2581, and no
 *     pre_tokenizer; or no normalizer and Metaspace (prepend_scheme first, always, never; split
 *     true or false); a decoder of Replace, ByteFallback, Fuse and at most Strip.
 * Both with added and special tokens, and a TemplateProcessing, ByteLevel or absent
 * post_processor.  Anything else in the file that would change ids is refused by name.
 *
 * Text in is any bytes.  Invalid UTF-8 is encoded byte by byte (no replacement character), so
 * decode(encode(x)) == x, byte-level for every x that NFC leaves alone, SentencePiece-style for
 * every x without U+2581 and added tokens, but for one leading space where Metaspace sets a prefix.
 * Time.    Linear in the text: merges by a heap, O(n log n) within one piece, which is as long as
 *          merges may reach: about a word.  Memory is 28 bytes for each byte of the longest piece.
 * Threads. Immutable after create: any number of threads may encode and decode at once. */
#ifndef COORDINATOR_TEXT_TOKENIZER_H
#define COORDINATOR_TEXT_TOKENIZER_H

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "base/view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEXT_MAX_TOKENIZER_BYTES ((size_t)64 << 20)
#define TEXT_MAX_VOCAB           (1 << 20)

typedef struct text_tokenizer text_tokenizer;

/* Token ids that grow; ends with text_ids_reset. */
typedef struct text_ids {
    int32_t *ids;
    size_t n_ids;
    size_t capacity;
    base_alloc mem;
} text_ids;

void text_ids_init(text_ids *ids, const base_alloc *mem);
void text_ids_reset(text_ids *ids);

/* Errors: BAD_FILE (field and reason), NO_MEMORY. */
BASE_MUST_CHECK base_status text_tokenizer_create(base_view tokenizer_json, const base_alloc *mem,
                                                  text_tokenizer **tokenizer_out);
void text_tokenizer_destroy(text_tokenizer *tokenizer); /* NULL is allowed */

/* One more than the highest id. */
int32_t text_tokenizer_vocab_size(const text_tokenizer *tokenizer);
/* The id of an added or ordinary token by the text that it decodes to ("<|eos|>", " the"), added
 * tokens first; -1 if there is none. */
int32_t text_tokenizer_find(const text_tokenizer *tokenizer, base_view token);
bool text_tokenizer_is_special(const text_tokenizer *tokenizer, int32_t id);

typedef struct text_encode_options {
    bool add_special;   /* put in front and behind what the post_processor says (<|bos|>) */
    bool parse_special; /* special tokens written in the text become their ids; else plain text */
    size_t max_ids;     /* 0 = no limit; stops early with OUT_OF_RANGE once it is passed */
} text_encode_options;

/* Appends the ids of text to *ids_out; on failure *ids_out is as before.
 * Errors: OUT_OF_RANGE (max_ids, 2 GiB of text, or a pattern that takes too many steps on it),
 * NO_MEMORY. */
BASE_MUST_CHECK base_status text_encode(const text_tokenizer *tokenizer, base_view text,
                                        text_encode_options options, text_ids *ids_out);

/* Appends the bytes of the ids, which may be invalid UTF-8 where a character is cut.  The ids are a
 * whole text: a leading space that stands for its beginning is left out.  Special tokens are left
 * out when skip_special.
 * Errors: BAD_INPUT (an id outside the vocabulary, named), OUT_OF_RANGE (text_out is full), NO_MEMORY. */
BASE_MUST_CHECK base_status text_decode(const text_tokenizer *tokenizer, const int32_t *ids,
                                        size_t n_ids, bool skip_special, base_bytes *text_out);
/* The same as valid UTF-8, with U+FFFD for bytes that are none, where Hugging Face's decode has
 * them (stream.h).  Errors: as text_decode. */
BASE_MUST_CHECK base_status text_decode_shown(const text_tokenizer *tokenizer, const int32_t *ids,
                                              size_t n_ids, bool skip_special,
                                              base_bytes *text_out);

#endif /* COORDINATOR_TEXT_TOKENIZER_H */
