#include "coordinator/text/tokenizer.h"

#include "coordinator/text/nfc.h"
#include "coordinator/text/tokenizer_parts.h"

static base_status put_added(text_vocab *vocab, const text_spec *spec)
{
    for (size_t i = 0; i < spec->n_added; i++) {
        const text_spec_added *a = &spec->added[i];
        if (vocab->tokens[a->id].kind != TEXT_TOKEN_NONE || text_vocab_find(vocab, a->text) >= 0) {
            return BASE_FAIL(BASE_BAD_FILE,
                             TEXT_JSON_WHAT ": added_tokens[%zu]: '%.*s' with id %d is a duplicate",
                             i, (int)a->text.n_bytes, a->text.data, a->id);
        }
        const base_status st = text_vocab_put(
            vocab, a->id, a->special ? TEXT_TOKEN_SPECIAL : TEXT_TOKEN_ADDED, a->text);
        if (st != BASE_OK) {
            return st;
        }
    }
    return BASE_OK;
}

/* Puts the vocabulary behind the added tokens, which may name some of it again, and finds the
 * tokens of single bytes. */
static base_status put_ordinary(text_vocab *vocab, const text_spec *spec, int32_t byte_ids[256])
{
    base_status st = BASE_OK;
    base_bytes bytes;

    base_bytes_init(&bytes, TEXT_MAX_TOKENIZER_BYTES, &spec->mem);
    for (size_t b = 0; b < 256; b++) {
        byte_ids[b] = -1;
    }
    for (int32_t id = 0; id < spec->n_ids; id++) {
        bool is_written = false;
        if (spec->tokens[id].data == NULL) {
            continue;
        }
        base_bytes_drop_front(&bytes, bytes.n_bytes);
        BASE_TRY(st, out, text_alphabet_read(spec->tokens[id], &bytes, &is_written));
        if (is_written && bytes.n_bytes == 1) {
            byte_ids[(unsigned char)bytes.data[0]] = id;
        }
        if (vocab->tokens[id].kind == TEXT_TOKEN_NONE) {
            BASE_TRY(st, out,
                     text_vocab_put(vocab, id, is_written ? TEXT_TOKEN_ORDINARY : TEXT_TOKEN_OPAQUE,
                                    is_written ? base_bytes_view(&bytes) : spec->tokens[id]));
        }
    }
    for (size_t b = 0; b < 256; b++) {
        if (byte_ids[b] < 0) {
            st = BASE_FAIL(BASE_BAD_FILE,
                           TEXT_JSON_WHAT ": model.vocab has no token for the byte 0x%02zx", b);
            goto out;
        }
    }
out:
    base_bytes_reset(&bytes);
    return st;
}

/* The added tokens that are, or are not, marked as normalized. */
static base_status make_trie(text_added *trie, const text_spec *spec, bool normalized)
{
    base_status st = BASE_OK;
    const base_alloc mem = spec->mem;
    size_t n = 0;
    base_bytes buffer;
    text_added_token *tokens = mem.get(mem.ctx, (spec->n_added + 1) * sizeof *tokens);

    base_bytes_init(&buffer, (size_t)4 * TEXT_MAX_ADDED_BYTES, &mem);
    if (tokens == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%zu added tokens", spec->n_added);
        goto out;
    }
    for (size_t i = 0; i < spec->n_added; i++) {
        const text_spec_added *a = &spec->added[i];
        base_view as_found = a->text;
        if (a->normalized != normalized) {
            continue;
        }
        if (normalized && spec->nfc) {
            BASE_TRY(st, out, text_nfc_apply(a->text, &buffer, &as_found));
        }
        if (!base_view_equal(as_found, a->text)) {
            st =
                BASE_FAIL(BASE_BAD_FILE,
                          TEXT_JSON_WHAT ": added_tokens[%zu]: '%.*s' is normalized and not in NFC",
                          i, (int)a->text.n_bytes, a->text.data);
            goto out;
        }
        tokens[n++] = (text_added_token){a->text, a->id, a->special};
    }
    BASE_TRY(st, out, text_added_init(trie, tokens, n, &mem));
out:
    base_bytes_reset(&buffer);
    mem.put(mem.ctx, tokens);
    return st;
}

base_status text_tokenizer_create(base_view tokenizer_json, const base_alloc *mem,
                                  text_tokenizer **tokenizer_out)
{
    base_status st = BASE_OK;
    text_tokenizer *t = NULL;
    int32_t byte_ids[256];
    text_spec spec = {.mem = *mem};

    BASE_TRY(st, out, text_spec_read(tokenizer_json, mem, &spec));
    t = mem->get(mem->ctx, sizeof *t);
    if (t == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "tokenizer");
        goto out;
    }
    t->mem = *mem;
    t->vocab.mem = *mem;
    t->vocab.blob.mem = *mem;
    t->bpe.merges.mem = *mem;
    t->raw.mem = *mem;
    t->raw.edges.mem = *mem;
    t->normalized.mem = *mem;
    t->normalized.edges.mem = *mem;
    t->nfc = spec.nfc;
    t->ignore_merges = spec.ignore_merges;
    t->front = spec.front;
    t->behind = spec.behind;
    BASE_TRY(st, out, text_vocab_init(&t->vocab, spec.n_ids, mem));
    BASE_TRY(st, out, put_added(&t->vocab, &spec));
    BASE_TRY(st, out, put_ordinary(&t->vocab, &spec, byte_ids));
    BASE_TRY(st, out, text_bpe_init(&t->bpe, byte_ids, spec.merges, spec.n_merges, mem));
    BASE_TRY(st, out, make_trie(&t->raw, &spec, false));
    BASE_TRY(st, out, make_trie(&t->normalized, &spec, true));
    BASE_TRY(st, out,
             text_pretokenizer_create(spec.patterns, spec.n_patterns, mem, &t->pretokenizer));
    *tokenizer_out = t;
    t = NULL; /* ownership moved */

out:
    text_tokenizer_destroy(t);
    text_spec_reset(&spec);
    return st;
}

void text_tokenizer_destroy(text_tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    const base_alloc mem = t->mem;
    text_vocab_reset(&t->vocab);
    text_bpe_reset(&t->bpe);
    text_added_reset(&t->raw);
    text_added_reset(&t->normalized);
    text_pretokenizer_destroy(t->pretokenizer);
    mem.put(mem.ctx, t);
}

int32_t text_tokenizer_vocab_size(const text_tokenizer *t)
{
    return t->vocab.n_ids;
}

int32_t text_tokenizer_find(const text_tokenizer *t, base_view token)
{
    return text_vocab_find(&t->vocab, token);
}

bool text_tokenizer_is_special(const text_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->vocab.n_ids && t->vocab.tokens[id].kind == TEXT_TOKEN_SPECIAL;
}

base_status text_decode(const text_tokenizer *t, const int32_t *ids, size_t n_ids,
                        bool skip_special, base_bytes *text_out)
{
    base_status st = BASE_OK;
    const size_t before = text_out->n_bytes;

    for (size_t i = 0; i < n_ids && st == BASE_OK; i++) {
        const int32_t id = ids[i];
        if (id < 0 || id >= t->vocab.n_ids || t->vocab.tokens[id].kind == TEXT_TOKEN_NONE) {
            st = BASE_FAIL(BASE_BAD_INPUT, "token id %d at index %zu, the vocabulary has 0..%d", id,
                           i, t->vocab.n_ids - 1);
        } else if (!skip_special || t->vocab.tokens[id].kind != TEXT_TOKEN_SPECIAL) {
            const base_view bytes = text_vocab_bytes(&t->vocab, id);
            st = base_bytes_add(text_out, bytes.data, bytes.n_bytes);
        }
    }
    if (st != BASE_OK && text_out->n_bytes > before) {
        text_out->n_bytes = before;
        text_out->data[before] = '\0';
    }
    return st;
}
