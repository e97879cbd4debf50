#include "coordinator/text/characters.h"

#include "coordinator/text/utf8.h"

#define BYTE_TOKEN_BYTES 6 /* of "<0x0A>" */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int text_byte_token_read(base_view written)
{
    if (written.n_bytes != BYTE_TOKEN_BYTES || memcmp(written.data, "<0x", 3) != 0 ||
        written.data[5] != '>') {
        return -1;
    }
    const int high = hex_digit(written.data[3]);
    const int low = hex_digit(written.data[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

/* Finds the character that is the whole of written. */
static bool is_character(base_view written, uint32_t *code_out)
{
    if (written.n_bytes < 1 || written.n_bytes > 4) {
        return false;
    }
    const text_utf8_char c = text_utf8_next(written.data, written.n_bytes);
    *code_out = c.code;
    return c.kind == TEXT_UTF8_VALID && c.n_bytes == written.n_bytes;
}

static base_status init_symbols(text_characters *c, const text_spec *spec)
{
    size_t n = 0;
    uint32_t code = 0;
    for (int32_t id = 0; id < spec->n_ids; id++) {
        n += is_character(spec->tokens[id], &code);
    }
    const base_status st = text_pairs_init(&c->others, n, &spec->mem);
    if (st != BASE_OK) {
        return st;
    }
    for (size_t i = 0; i < 128; i++) {
        c->ascii[i] = -1;
    }
    for (int32_t id = 0; id < spec->n_ids; id++) {
        if (!is_character(spec->tokens[id], &code)) {
            continue;
        }
        if (code < 128) {
            c->ascii[code] = id;
        } else {
            text_pairs_set(&c->others, code, 0, (uint64_t)id);
        }
    }
    return BASE_OK;
}

/* The symbols that a token may begin or end with: its character there, and the byte token that it
 * is written like there. */
typedef struct ends {
    int32_t symbols[2];
    size_t n;
} ends;

static void add_end(ends *e, int32_t symbol)
{
    if (symbol >= 0) {
        e->symbols[e->n++] = symbol;
    }
}

static ends ends_of(const text_characters *c, const int32_t byte_ids[256], base_view token,
                    bool at_front)
{
    ends e = {{0, 0}, 0};
    size_t at = at_front ? 0 : token.n_bytes - 1;
    while (at > 0 && !at_front && ((unsigned char)token.data[at] & 0xc0) == 0x80) {
        at--;
    }
    const text_utf8_char one = text_utf8_next(token.data + at, token.n_bytes - at);
    if (one.kind == TEXT_UTF8_VALID) {
        add_end(&e, text_characters_id(c, one.code));
    }
    if (token.n_bytes >= BYTE_TOKEN_BYTES) {
        const size_t from = at_front ? 0 : token.n_bytes - BYTE_TOKEN_BYTES;
        const int byte = text_byte_token_read((base_view){token.data + from, BYTE_TOKEN_BYTES});
        add_end(&e, byte < 0 ? -1 : byte_ids[byte]);
    }
    return e;
}

static base_status init_joints(text_characters *c, const text_spec *spec,
                               const int32_t byte_ids[256])
{
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            const base_status st = text_pairs_init(&c->joints, n, &spec->mem);
            if (st != BASE_OK) {
                return st;
            }
        }
        for (size_t i = 0; i < spec->n_merges; i++) {
            const base_view left = spec->tokens[spec->merges[i].left];
            const base_view right = spec->tokens[spec->merges[i].right];
            const ends a = ends_of(c, byte_ids, left, false);
            const ends b = ends_of(c, byte_ids, right, true);
            n += a.n * b.n;
            for (size_t j = 0; pass == 1 && j < a.n * b.n; j++) {
                text_pairs_set(&c->joints, (uint32_t)a.symbols[j / b.n],
                               (uint32_t)b.symbols[j % b.n], 1);
            }
        }
    }
    return BASE_OK;
}

base_status text_characters_init(text_characters *characters, const text_spec *spec,
                                 const int32_t byte_ids[256])
{
    base_status st = BASE_OK;
    text_characters c = {.others.mem = spec->mem, .joints.mem = spec->mem};
    BASE_TRY(st, out, init_symbols(&c, spec));
    BASE_TRY(st, out, init_joints(&c, spec, byte_ids));
    *characters = c;
    return BASE_OK;

out:
    text_characters_reset(&c);
    return st;
}

void text_characters_reset(text_characters *characters)
{
    text_pairs_reset(&characters->others);
    text_pairs_reset(&characters->joints);
}

size_t text_characters_split(const text_characters *characters, const int32_t byte_ids[256],
                             base_view text, int32_t *ids_out)
{
    size_t n = 0;
    for (size_t at = 0; at < text.n_bytes;) {
        const text_utf8_char c = text_utf8_next(text.data + at, text.n_bytes - at);
        const int32_t id = text_characters_id(characters, c.code);
        const size_t n_ids = id >= 0 ? 1 : c.n_bytes;
        for (size_t i = 0; ids_out != NULL && i < n_ids; i++) {
            ids_out[n + i] = id >= 0 ? id : byte_ids[(unsigned char)text.data[at + i]];
        }
        n += n_ids;
        at += c.n_bytes;
    }
    return n;
}
