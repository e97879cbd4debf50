#include "base/utf8.h"

#include <stdint.h>

/* Bytes of the character at p, 1..4, of which n are there; 0 if it is broken. */
static size_t character(const uint8_t *p, size_t n)
{
    /* What the second byte may be is where overlong forms, surrogates and the end of Unicode are
     * refused; later bytes are free in their six bits. */
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t n_bytes;

    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        n_bytes = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        n_bytes = 3;
        low = p[0] == 0xe0 ? 0xa0 : low;
        high = p[0] == 0xed ? 0x9f : high;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        n_bytes = 4;
        low = p[0] == 0xf0 ? 0x90 : low;
        high = p[0] == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (n < n_bytes || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < n_bytes; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return n_bytes;
}

bool base_utf8_valid(base_view text, size_t *bad_at_out)
{
    const uint8_t *p = (const uint8_t *)text.data;
    size_t at = 0;

    while (at < text.n_bytes) {
        uint64_t eight;
        if (text.n_bytes - at >= sizeof eight) { /* prompts are mostly ASCII */
            memcpy(&eight, p + at, sizeof eight);
            if ((eight & 0x8080808080808080u) == 0) {
                at += sizeof eight;
                continue;
            }
        }
        const size_t n_bytes = character(p + at, text.n_bytes - at);
        if (n_bytes == 0) {
            if (bad_at_out != NULL) {
                *bad_at_out = at;
            }
            return false;
        }
        at += n_bytes;
    }
    return true;
}
