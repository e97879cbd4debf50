/* coordinator/text/pretokenize.h - cutting text into the pieces within which BPE merges.
 *
 * A pretokenizer is a row of patterns.  Each cuts what the one before it made: every match is a
 * piece, and so is what lies between two matches.
 * Threads. A pretokenizer is only read after create; each thread has a cutter of its own. */
#ifndef COORDINATOR_TEXT_PRETOKENIZE_H
#define COORDINATOR_TEXT_PRETOKENIZE_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"

#include <stdbool.h>

#define TEXT_MAX_PATTERNS      8
#define TEXT_MAX_PATTERN_BYTES 4096

typedef struct text_pretokenizer text_pretokenizer;
typedef struct text_cutter text_cutter;

typedef struct text_pretokenizer_pattern {
    base_view text;
    bool is_literal; /* a plain string, not a regular expression */
} text_pretokenizer_pattern;

/* Patterns are valid UTF-8 in the syntax of tokenizer.json, 0..TEXT_MAX_PATTERNS of them.
 * Errors: BAD_FILE (a pattern that is malformed or not supported, quoted), NO_MEMORY. */
BASE_MUST_CHECK base_status text_pretokenizer_create(const text_pretokenizer_pattern *patterns,
                                                     size_t n_patterns, const base_alloc *mem,
                                                     text_pretokenizer **pretokenizer_out);
void text_pretokenizer_destroy(text_pretokenizer *pretokenizer); /* NULL is allowed */

/* pretokenizer is borrowed.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status text_cutter_create(const text_pretokenizer *pretokenizer,
                                               const base_alloc *mem, text_cutter **cutter_out);
void text_cutter_destroy(text_cutter *cutter); /* NULL is allowed */

/* Takes one piece, never an empty one.  An error ends the cutting. */
typedef base_status (*text_piece_fn)(void *ctx, base_view piece);

/* Gives the pieces of text (valid UTF-8) in order; together they are the text.
 * Errors: OUT_OF_RANGE (a pattern takes too many steps on this text), NO_MEMORY, or piece_fn's. */
BASE_MUST_CHECK base_status text_cutter_run(text_cutter *cutter, base_view text,
                                            text_piece_fn piece_fn, void *ctx);

#endif /* COORDINATOR_TEXT_PRETOKENIZE_H */
