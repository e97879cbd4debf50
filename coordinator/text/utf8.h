/* coordinator/text/utf8.h - UTF-8 that may be wrong or cut anywhere.  Any thread. */
#ifndef COORDINATOR_TEXT_UTF8_H
#define COORDINATOR_TEXT_UTF8_H

#include "base/view.h"

#include <stdint.h>

#define TEXT_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

typedef enum text_utf8_kind {
    TEXT_UTF8_VALID,   /* a whole character */
    TEXT_UTF8_INVALID, /* a maximal invalid run (Unicode 3.9, table 3-7): one U+FFFD */
    TEXT_UTF8_CUT,     /* right so far, but the bytes end inside the character */
} text_utf8_kind;

typedef struct text_utf8_char {
    text_utf8_kind kind;
    size_t n_bytes; /* 1..4 that it takes */
    uint32_t code;  /* the code point, of a VALID one */
} text_utf8_char;

/* What data[0..n_bytes) starts with; n_bytes > 0. */
text_utf8_char text_utf8_next(const char *data, size_t n_bytes);
/* Length of the longest prefix that is valid UTF-8. */
size_t text_utf8_valid_prefix(base_view text);
/* Length of the longest prefix of bytes below 0x80. */
size_t text_utf8_ascii_prefix(base_view text);

#endif /* COORDINATOR_TEXT_UTF8_H */
