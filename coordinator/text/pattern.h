/* coordinator/text/pattern.h - a regular expression of tokenizer.json in the syntax of PCRE2.
 *
 * Those files are written for Oniguruma.  What both read alike is copied, \s and \S become the
 * Unicode property that Oniguruma means, and what the two read differently is refused. */
#ifndef COORDINATOR_TEXT_PATTERN_H
#define COORDINATOR_TEXT_PATTERN_H

#include "base/bytes.h"
#include "base/status.h"
#include "base/view.h"

/* Appends the translation to *out.  Errors: BAD_FILE (naming the construct and its offset),
 * OUT_OF_RANGE (out is full), NO_MEMORY. */
BASE_MUST_CHECK base_status text_pattern_translate(base_view pattern, base_bytes *out);

#endif /* COORDINATOR_TEXT_PATTERN_H */
