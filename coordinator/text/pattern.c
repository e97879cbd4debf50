#include "coordinator/text/pattern.h"

#include <ctype.h>
#include <stdbool.h>

typedef struct reader {
    base_view in;
    size_t at;
    bool in_class;
    base_bytes *out;
} reader;

/* NUL past the end. */
static char peek(const reader *r, size_t ahead)
{
    return r->at + ahead < r->in.n_bytes ? r->in.data[r->at + ahead] : '\0';
}

static bool starts_with(const reader *r, const char *text)
{
    const size_t n = strlen(text);
    return n <= r->in.n_bytes - r->at && memcmp(r->in.data + r->at, text, n) == 0;
}

static base_status refuse(const reader *r, size_t n_bytes)
{
    const size_t left = r->in.n_bytes - r->at;
    return BASE_FAIL(BASE_BAD_FILE,
                     "tokenizer.json: pattern construct '%.*s' at offset %zu is not supported",
                     (int)(n_bytes < left ? n_bytes : left), r->in.data + r->at, r->at);
}

static base_status copy(reader *r, size_t n_bytes)
{
    const base_status st = base_bytes_add(r->out, r->in.data + r->at, n_bytes);
    if (st == BASE_OK) {
        r->at += n_bytes;
    }
    return st;
}

static base_status replace(reader *r, size_t n_bytes, const char *with)
{
    const base_status st = base_bytes_add(r->out, with, strlen(with));
    if (st == BASE_OK) {
        r->at += n_bytes;
    }
    return st;
}

/* Copies up to and with the closing brace; what is inside are letters, digits, '_' and '^'. */
static base_status copy_braced(reader *r, size_t n_open)
{
    size_t n = n_open;
    while (isalnum((unsigned char)peek(r, n)) || peek(r, n) == '_' || peek(r, n) == '^') {
        n++;
    }
    return peek(r, n) == '}' && n > n_open ? copy(r, n + 1) : refuse(r, n + 1);
}

static base_status read_escape(reader *r)
{
    const char c = peek(r, 1);
    switch (c) {
    case 's': return replace(r, 2, "\\p{White_Space}");
    case 'S': return replace(r, 2, "\\P{White_Space}");
    case 'd':
    case 'D':
    case 'r':
    case 'n':
    case 't':
    case 'f': return copy(r, 2);
    case 'p':
    case 'P':
    case 'x': return peek(r, 2) == '{' ? copy_braced(r, 3) : refuse(r, 3);
    default: return ispunct((unsigned char)c) ? copy(r, 2) : refuse(r, 2);
    }
}

static base_status read_in_class(reader *r)
{
    if (peek(r, 0) == '[' || starts_with(r, "&&")) {
        return refuse(r, 2); /* sets of sets, in one of the two */
    }
    r->in_class = peek(r, 0) != ']';
    return copy(r, 1);
}

static base_status read_open_bracket(reader *r)
{
    const size_t n = peek(r, 1) == '^' ? 2 : 1;
    if (peek(r, n) == ']') {
        return refuse(r, n + 1);
    }
    r->in_class = true;
    return copy(r, n);
}

static base_status read_open_paren(reader *r)
{
    static const char *const groups[] = {"(?:", "(?i:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    if (peek(r, 1) == '*') {
        return refuse(r, 2);
    }
    if (peek(r, 1) != '?') {
        return copy(r, 1);
    }
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        if (starts_with(r, groups[i])) {
            return copy(r, strlen(groups[i]));
        }
    }
    return refuse(r, 4);
}

/* {m}, {m,} or {m,n}.  A '+' or '?' behind it means different things. */
static base_status read_repeat(reader *r)
{
    size_t n = 1;
    while (isdigit((unsigned char)peek(r, n))) {
        n++;
    }
    const bool has_low = n > 1;
    if (peek(r, n) == ',') {
        n++;
        while (isdigit((unsigned char)peek(r, n))) {
            n++;
        }
    }
    const char behind = peek(r, n + 1);
    if (!has_low || peek(r, n) != '}' || behind == '+' || behind == '?') {
        return refuse(r, n + 2);
    }
    return copy(r, n + 1);
}

base_status text_pattern_translate(base_view pattern, base_bytes *out)
{
    reader r = {pattern, 0, false, out};
    while (r.at < pattern.n_bytes) {
        base_status st;
        const char c = peek(&r, 0);
        if (c == '\\') {
            st = read_escape(&r);
        } else if (r.in_class) {
            st = read_in_class(&r);
        } else if (c == '[') {
            st = read_open_bracket(&r);
        } else if (c == '(') {
            st = read_open_paren(&r);
        } else if (c == '{') {
            st = read_repeat(&r);
        } else if (c == '^' || c == '$') {
            st = refuse(&r, 1); /* per line in Oniguruma, per text in PCRE2 */
        } else {
            st = copy(&r, 1);
        }
        if (st != BASE_OK) {
            return st;
        }
    }
    return BASE_OK;
}
