#include "coordinator/text/utf8.h"

text_utf8_char text_utf8_next(const char *data, size_t n_bytes)
{
    const unsigned char *p = (const unsigned char *)data;
    const unsigned lead = p[0];
    size_t n_want = 0;
    /* Only the second byte has a range that depends on the first one. */
    unsigned low = 0x80;
    unsigned high = 0xbf;
    uint32_t code;

    if (lead < 0x80) {
        return (text_utf8_char){TEXT_UTF8_VALID, 1, lead};
    }
    if (lead >= 0xc2 && lead <= 0xdf) {
        n_want = 2;
        code = lead & 0x1fu;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        n_want = 3;
        code = lead & 0x0fu;
        low = lead == 0xe0 ? 0xa0 : 0x80;
        high = lead == 0xed ? 0x9f : 0xbf;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        n_want = 4;
        code = lead & 0x07u;
        low = lead == 0xf0 ? 0x90 : 0x80;
        high = lead == 0xf4 ? 0x8f : 0xbf;
    } else {
        return (text_utf8_char){TEXT_UTF8_INVALID, 1, 0};
    }
    for (size_t i = 1; i < n_want; i++) {
        if (i == n_bytes) {
            return (text_utf8_char){TEXT_UTF8_CUT, n_bytes, 0};
        }
        if (p[i] < low || p[i] > high) {
            return (text_utf8_char){TEXT_UTF8_INVALID, i, 0};
        }
        code = code << 6 | (p[i] & 0x3fu);
        low = 0x80;
        high = 0xbf;
    }
    return (text_utf8_char){TEXT_UTF8_VALID, n_want, code};
}

size_t text_utf8_ascii_prefix(base_view text)
{
    size_t i = 0;
    uint64_t word;
    while (i + sizeof word <= text.n_bytes) {
        memcpy(&word, text.data + i, sizeof word);
        if ((word & 0x8080808080808080u) != 0) {
            break;
        }
        i += sizeof word;
    }
    while (i < text.n_bytes && (unsigned char)text.data[i] < 0x80) {
        i++;
    }
    return i;
}

size_t text_utf8_valid_prefix(base_view text)
{
    size_t i = 0;
    while (i < text.n_bytes) {
        if ((unsigned char)text.data[i] < 0x80) {
            const base_view rest = {text.data + i, text.n_bytes - i};
            i += text_utf8_ascii_prefix(rest);
            continue;
        }
        const text_utf8_char c = text_utf8_next(text.data + i, text.n_bytes - i);
        if (c.kind != TEXT_UTF8_VALID) {
            break;
        }
        i += c.n_bytes;
    }
    return i;
}
