/* SentencePiece-style BPE: tokens are written as text, with U+2581 for each space; characters
 * that have no token are written in tokens of bytes, "<0x0A>". */
#include "coordinator/text/characters.h"
#include "coordinator/text/family.h"
#include "coordinator/text/tokenizer_parts.h"
#include "coordinator/text/utf8.h"

static const char mark[] = TEXT_SPACE_MARK;

enum { MARK_BYTES = sizeof mark - 1, MARK_CODE = 0x2581 };

/* Appends text with every `from` written as `to`. */
static base_status replace(base_view text, const char *from, const char *to, base_bytes *out)
{
    base_status st = BASE_OK;
    const size_t n_from = strlen(from);
    while (text.n_bytes > 0 && st == BASE_OK) {
        const char *found = memmem(text.data, text.n_bytes, from, n_from);
        const size_t n = found == NULL ? text.n_bytes : (size_t)(found - text.data);
        st = base_bytes_add(out, text.data, n);
        if (st == BASE_OK && found != NULL) {
            st = base_bytes_add(out, to, strlen(to));
        }
        const size_t n_done = found == NULL ? n : n + n_from;
        text.data += n_done;
        text.n_bytes -= n_done;
    }
    return st;
}

static base_status read_token(base_view written, base_bytes *bytes_out,
                              text_token_meaning *meaning_out)
{
    const int byte = text_byte_token_read(written);
    if (byte >= 0) {
        const char one = (char)byte;
        /* "<0x0a>" is read as a byte as well, and never written. */
        const bool is_upper = written.data[3] < 'a' && written.data[4] < 'a';
        *meaning_out = (text_token_meaning){TEXT_TOKEN_BYTE, is_upper ? byte : -1};
        return base_bytes_add(bytes_out, &one, 1);
    }
    *meaning_out = (text_token_meaning){TEXT_TOKEN_ORDINARY, -1};
    return replace(written, mark, " ", bytes_out);
}

static base_status normalize(const text_spaces *spaces, base_view text, base_bytes *out)
{
    const bool has_prefix = spaces->prefix != TEXT_PREFIX_NEVER;
    const base_status st = base_bytes_add(out, mark, has_prefix ? MARK_BYTES : 0);
    return st == BASE_OK ? replace(text, " ", mark, out) : st;
}

static base_status normalize_added(const text_tokenizer *t, base_view token, base_bytes *out)
{
    return t->spaces.by_normalizer ? normalize(&t->spaces, token, out)
                                   : base_bytes_add(out, token.data, token.n_bytes);
}

/* Cuts where no merge can span, so that pieces are about as long as words. */
static base_status cut(text_encoding *e, base_view text)
{
    const text_tokenizer *t = e->t;
    base_status st = BASE_OK;
    size_t begin = 0;  /* of the piece */
    int32_t last = -1; /* its last symbol */
    size_t at = 0;
    while (at < text.n_bytes && st == BASE_OK) {
        const text_utf8_char c = text_utf8_next(text.data + at, text.n_bytes - at);
        const base_view piece = {text.data + begin, at - begin};
        if (c.kind != TEXT_UTF8_VALID) {
            const base_view bytes = {text.data + at, c.n_bytes};
            st = piece.n_bytes > 0 ? text_encoding_piece(e, piece) : BASE_OK;
            if (st == BASE_OK) {
                st = text_encoding_emit_bytes(e, bytes);
            }
            begin = at + c.n_bytes;
        } else {
            const int32_t id = text_characters_id(&t->characters, c.code);
            const int32_t first = id >= 0 ? id : t->bpe.byte_ids[(unsigned char)text.data[at]];
            if (piece.n_bytes > 0 && ((t->spaces.split && c.code == MARK_CODE) ||
                                      !text_characters_may_join(&t->characters, last, first))) {
                st = text_encoding_piece(e, piece);
                begin = at;
            }
            last = id >= 0 ? id : t->bpe.byte_ids[(unsigned char)text.data[at + c.n_bytes - 1]];
        }
        at += c.n_bytes;
    }
    if (st == BASE_OK && begin < text.n_bytes) {
        const base_view piece = {text.data + begin, text.n_bytes - begin};
        st = text_encoding_piece(e, piece);
    }
    return st;
}

/* Metaspace, on what is between added tokens. */
static base_status encode_metaspace(text_encoding *e, base_view part)
{
    text_spaces spaces = e->t->spaces;
    const bool is_marked = part.data[0] == ' ' ||
                           (part.n_bytes >= MARK_BYTES && memcmp(part.data, mark, MARK_BYTES) == 0);
    if (is_marked || (spaces.prefix == TEXT_PREFIX_FIRST && part.data != e->text.data)) {
        spaces.prefix = TEXT_PREFIX_NEVER;
    }
    base_bytes_drop_front(&e->normalized, e->normalized.n_bytes);
    const base_status st = normalize(&spaces, part, &e->normalized);
    return st == BASE_OK ? cut(e, base_bytes_view(&e->normalized)) : st;
}

static base_status encode(text_encoding *e, base_view part)
{
    const text_tokenizer *t = e->t;
    if (!t->spaces.by_normalizer) {
        return text_encoding_split(e, &t->normalized, part, encode_metaspace);
    }
    base_bytes_drop_front(&e->normalized, e->normalized.n_bytes);
    const base_status st = normalize(&t->spaces, part, &e->normalized);
    return st == BASE_OK
               ? text_encoding_split(e, &t->normalized, base_bytes_view(&e->normalized), cut)
               : st;
}

static base_status merge(const text_tokenizer *t, base_view piece, text_bpe_scratch *scratch,
                         const int32_t **ids_out, size_t *n_ids_out)
{
    int32_t *ids = NULL;
    const int32_t *byte_ids = t->bpe.byte_ids;
    const size_t n = text_characters_split(&t->characters, byte_ids, piece, NULL);
    const base_status st = text_bpe_reserve(scratch, n, &ids);
    if (st != BASE_OK) {
        return st;
    }
    (void)text_characters_split(&t->characters, byte_ids, piece, ids);
    *n_ids_out = text_bpe_merge_ids(&t->bpe, scratch, n);
    *ids_out = ids;
    return BASE_OK;
}

/* A run of bytes is text if all of it is, else every byte of it is a character that is lost. */
static base_status show_rest(base_bytes *open, base_bytes *out)
{
    base_status st = BASE_OK;
    const base_view run = base_bytes_view(open);
    if (text_utf8_valid_prefix(run) == run.n_bytes) {
        st = base_bytes_add(out, run.data, run.n_bytes);
    } else {
        for (size_t i = 0; i < run.n_bytes && st == BASE_OK; i++) {
            st = base_bytes_add(out, TEXT_REPLACEMENT, 3);
        }
    }
    base_bytes_drop_front(open, run.n_bytes);
    return st;
}

static base_status show(const text_tokenizer *t, int32_t id, base_bytes *open, base_bytes *out)
{
    const base_view bytes = text_vocab_bytes(&t->vocab, id);
    if (t->vocab.tokens[id].kind == TEXT_TOKEN_BYTE) {
        return base_bytes_add(open, bytes.data, bytes.n_bytes);
    }
    const base_status st = show_rest(open, out);
    return st == BASE_OK ? base_bytes_add(out, bytes.data, bytes.n_bytes) : st;
}

const text_family text_family_sentencepiece = {read_token, read_token, normalize_added, encode,
                                               merge,      show,       show_rest};
