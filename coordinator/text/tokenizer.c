#include "coordinator/text/tokenizer.h"

#include "coordinator/text/tokenizer_parts.h"

static base_status put_added(text_tokenizer *t, const text_spec *spec)
{
    base_status st = BASE_OK;
    base_bytes looks;
    base_bytes bytes;

    base_bytes_init(&looks, TEXT_MAX_TOKENIZER_BYTES, &spec->mem);
    base_bytes_init(&bytes, TEXT_MAX_TOKENIZER_BYTES, &spec->mem);
    for (size_t i = 0; i < spec->n_added; i++) {
        const text_spec_added *a = &spec->added[i];
        text_token_meaning meaning = {TEXT_TOKEN_NONE, -1};
        base_bytes_drop_front(&bytes, bytes.n_bytes);
        base_bytes_drop_front(&looks, looks.n_bytes);
        if (a->normalized) { /* it is found, and so decodes, as normalization makes it look */
            BASE_TRY(st, out, t->family->normalize_added(t, a->text, &looks));
        } else {
            BASE_TRY(st, out, base_bytes_add(&looks, a->text.data, a->text.n_bytes));
        }
        BASE_TRY(st, out, t->family->read_added(base_bytes_view(&looks), &bytes, &meaning));
        const base_view decoded = base_bytes_view(&bytes);
        if (meaning.kind == TEXT_TOKEN_BYTE) {
            st = BASE_FAIL(BASE_BAD_FILE, TEXT_JSON_WHAT ": added_tokens[%zu]: '%.*s' is a byte", i,
                           (int)a->text.n_bytes, a->text.data);
            goto out;
        }
        if (t->vocab.tokens[a->id].kind != TEXT_TOKEN_NONE ||
            text_vocab_find(&t->vocab, decoded) >= 0) {
            st = BASE_FAIL(BASE_BAD_FILE,
                           TEXT_JSON_WHAT ": added_tokens[%zu]: '%.*s' with id %d is a duplicate",
                           i, (int)a->text.n_bytes, a->text.data, a->id);
            goto out;
        }
        BASE_TRY(st, out,
                 text_vocab_put(&t->vocab, a->id,
                                a->special ? TEXT_TOKEN_SPECIAL : TEXT_TOKEN_ADDED, decoded));
    }
out:
    base_bytes_reset(&looks);
    base_bytes_reset(&bytes);
    return st;
}

/* Puts the vocabulary behind the added tokens, which may name some of it again, and finds the
 * tokens of single bytes. */
static base_status put_ordinary(text_tokenizer *t, const text_spec *spec, int32_t byte_ids[256])
{
    base_status st = BASE_OK;
    base_bytes bytes;

    base_bytes_init(&bytes, TEXT_MAX_TOKENIZER_BYTES, &spec->mem);
    for (size_t b = 0; b < 256; b++) {
        byte_ids[b] = -1;
    }
    /* Bytes last: of two tokens that decode alike, the first is found. */
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t id = 0; id < spec->n_ids; id++) {
            text_token_meaning meaning = {TEXT_TOKEN_NONE, -1};
            if (spec->tokens[id].data == NULL) {
                continue;
            }
            base_bytes_drop_front(&bytes, bytes.n_bytes);
            BASE_TRY(st, out, t->family->read_token(spec->tokens[id], &bytes, &meaning));
            if ((meaning.kind == TEXT_TOKEN_BYTE) != (pass == 1)) {
                continue;
            }
            if (meaning.byte >= 0) {
                byte_ids[meaning.byte] = id;
            }
            if (t->vocab.tokens[id].kind == TEXT_TOKEN_NONE) {
                BASE_TRY(st, out,
                         text_vocab_put(&t->vocab, id, meaning.kind, base_bytes_view(&bytes)));
            }
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
static base_status make_trie(const text_tokenizer *t, const text_spec *spec, bool normalized,
                             text_added *trie)
{
    base_status st = BASE_OK;
    const base_alloc mem = spec->mem;
    size_t n = 0;
    size_t n_done = 0;
    base_bytes texts; /* of all tokens */
    text_added_token *tokens = mem.get(mem.ctx, (spec->n_added + 1) * sizeof *tokens);

    base_bytes_init(&texts, (spec->n_added + 1) * 4 * TEXT_MAX_ADDED_BYTES, &mem);
    if (tokens == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%zu added tokens", spec->n_added);
        goto out;
    }
    for (size_t i = 0; i < spec->n_added; i++) {
        const text_spec_added *a = &spec->added[i];
        if (a->normalized != normalized) {
            continue;
        }
        if (normalized) {
            BASE_TRY(st, out, t->family->normalize_added(t, a->text, &texts));
        } else {
            BASE_TRY(st, out, base_bytes_add(&texts, a->text.data, a->text.n_bytes));
        }
        const base_view length = {NULL, texts.n_bytes - n_done};
        tokens[n++] = (text_added_token){length, a->id, a->special};
        n_done = texts.n_bytes;
    }
    const char *at = texts.data;
    for (size_t i = 0; i < n; i++) {
        tokens[i].bytes.data = at;
        at += tokens[i].bytes.n_bytes;
    }
    BASE_TRY(st, out, text_added_init(trie, tokens, n, &mem));
out:
    base_bytes_reset(&texts);
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
    t->characters.others.mem = *mem;
    t->characters.joints.mem = *mem;
    t->family = spec.byte_fallback ? &text_family_sentencepiece : &text_family_byte_level;
    t->spaces = spec.spaces;
    t->nfc = spec.nfc;
    t->ignore_merges = spec.ignore_merges;
    t->front = spec.front;
    t->behind = spec.behind;
    BASE_TRY(st, out, text_vocab_init(&t->vocab, spec.n_ids, mem));
    BASE_TRY(st, out, put_added(t, &spec));
    BASE_TRY(st, out, put_ordinary(t, &spec, byte_ids));
    BASE_TRY(st, out, text_bpe_init(&t->bpe, byte_ids, spec.merges, spec.n_merges, mem));
    if (spec.byte_fallback) {
        BASE_TRY(st, out, text_characters_init(&t->characters, &spec, byte_ids));
    }
    BASE_TRY(st, out, make_trie(t, &spec, false, &t->raw));
    BASE_TRY(st, out, make_trie(t, &spec, true, &t->normalized));
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
    text_characters_reset(&t->characters);
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

base_status text_tokenizer_check_id(const text_tokenizer *t, int32_t id, size_t index)
{
    if (id < 0 || id >= t->vocab.n_ids || t->vocab.tokens[id].kind == TEXT_TOKEN_NONE) {
        return BASE_FAIL(BASE_BAD_INPUT, "token id %d at index %zu, the vocabulary has 0..%d", id,
                         index, t->vocab.n_ids - 1);
    }
    return BASE_OK;
}
