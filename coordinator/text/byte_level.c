/* Byte-level BPE: tokens are written in GPT-2's alphabet of bytes. */
#include "coordinator/text/family.h"
#include "coordinator/text/nfc.h"
#include "coordinator/text/tokenizer_parts.h"
#include "coordinator/text/utf8.h"

static base_status read_token(base_view written, base_bytes *bytes_out,
                              text_token_meaning *meaning_out)
{
    bool is_written = false;
    const size_t before = bytes_out->n_bytes;
    base_status st = text_alphabet_read(written, bytes_out, &is_written);
    if (st != BASE_OK) {
        return st;
    }
    const bool is_one = is_written && bytes_out->n_bytes == before + 1;
    *meaning_out = (text_token_meaning){is_written ? TEXT_TOKEN_ORDINARY : TEXT_TOKEN_OPAQUE,
                                        is_one ? (unsigned char)bytes_out->data[before] : -1};
    return is_written ? BASE_OK : base_bytes_add(bytes_out, written.data, written.n_bytes);
}

static base_status read_added(base_view written, base_bytes *bytes_out,
                              text_token_meaning *meaning_out)
{
    *meaning_out = (text_token_meaning){TEXT_TOKEN_OPAQUE, -1};
    return base_bytes_add(bytes_out, written.data, written.n_bytes);
}

static base_status normalize_added(const text_tokenizer *t, base_view token, base_bytes *out)
{
    base_status st = BASE_OK;
    base_view nfc = token;
    base_bytes buffer;

    base_bytes_init(&buffer, (size_t)4 * TEXT_MAX_ADDED_BYTES, &t->mem);
    if (t->nfc) {
        BASE_TRY(st, out, text_nfc_apply(token, &buffer, &nfc));
    }
    if (!base_view_equal(nfc, token)) {
        st = BASE_FAIL(BASE_BAD_FILE,
                       TEXT_JSON_WHAT ": added_tokens: '%.*s' is normalized and not in NFC",
                       (int)token.n_bytes, token.data);
        goto out;
    }
    st = base_bytes_add(out, token.data, token.n_bytes);
out:
    base_bytes_reset(&buffer);
    return st;
}

static base_status encode_normalized(text_encoding *e, base_view part)
{
    return text_cutter_run(e->cutter, part, text_encoding_piece, e);
}

/* run is valid UTF-8. */
static base_status encode_run(text_encoding *e, base_view run)
{
    base_view normalized = run;
    if (e->t->nfc) {
        const base_status st = text_nfc_apply(run, &e->normalized, &normalized);
        if (st != BASE_OK) {
            return st;
        }
    }
    return text_encoding_split(e, &e->t->normalized, normalized, encode_normalized);
}

static base_status encode(text_encoding *e, base_view part)
{
    base_status st = BASE_OK;
    while (part.n_bytes > 0 && st == BASE_OK) {
        base_view run = {part.data, text_utf8_valid_prefix(part)};
        if (run.n_bytes > 0) {
            st = encode_run(e, run);
        } else {
            run.n_bytes = text_utf8_next(part.data, part.n_bytes).n_bytes;
            st = text_encoding_emit_bytes(e, run);
        }
        part.data += run.n_bytes;
        part.n_bytes -= run.n_bytes;
    }
    return st;
}

static base_status merge(const text_tokenizer *t, base_view piece, text_bpe_scratch *scratch,
                         const int32_t **ids_out, size_t *n_ids_out)
{
    return text_bpe_encode(&t->bpe, piece, scratch, ids_out, n_ids_out);
}

/* Moves the characters of open to out; a cut one stays, or is replaced at_end. */
static base_status assemble(base_bytes *open, bool at_end, base_bytes *out)
{
    base_status st = BASE_OK;
    size_t i = 0;
    while (i < open->n_bytes && st == BASE_OK) {
        const char *bytes = open->data + i;
        const text_utf8_char c = text_utf8_next(bytes, open->n_bytes - i);
        if (c.kind == TEXT_UTF8_CUT && !at_end) {
            break;
        }
        st = c.kind == TEXT_UTF8_VALID ? base_bytes_add(out, bytes, c.n_bytes)
                                       : base_bytes_add(out, TEXT_REPLACEMENT, 3);
        i += c.n_bytes;
    }
    base_bytes_drop_front(open, i);
    return st;
}

static base_status show(const text_tokenizer *t, int32_t id, base_bytes *open, base_bytes *out)
{
    const base_view bytes = text_vocab_bytes(&t->vocab, id);
    const base_status st = base_bytes_add(open, bytes.data, bytes.n_bytes);
    return st == BASE_OK ? assemble(open, false, out) : st;
}

static base_status show_rest(base_bytes *open, base_bytes *out)
{
    return assemble(open, true, out);
}

const text_family text_family_byte_level = {read_token, read_added, normalize_added, encode,
                                            merge,      show,       show_rest};
