#include "coordinator/text/vocab.h"

#include "coordinator/text/utf8.h"

#include <assert.h>

base_status text_vocab_init(text_vocab *vocab, int32_t n_ids, const base_alloc *mem)
{
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)n_ids) { /* at most half full */
        n_slots *= 2;
    }
    text_vocab v = {.n_ids = n_ids, .mask = n_slots - 1, .mem = *mem};
    base_bytes_init(&v.blob, UINT32_MAX, mem);
    v.tokens = mem->get(mem->ctx, (size_t)n_ids * sizeof *v.tokens);
    v.slots = mem->get(mem->ctx, n_slots * sizeof *v.slots);
    if (v.tokens == NULL || v.slots == NULL) {
        text_vocab_reset(&v);
        return BASE_FAIL(BASE_NO_MEMORY, "vocabulary of %d tokens", n_ids);
    }
    for (size_t i = 0; i < n_slots; i++) {
        v.slots[i] = -1;
    }
    *vocab = v;
    return BASE_OK;
}

void text_vocab_reset(text_vocab *vocab)
{
    base_bytes_reset(&vocab->blob);
    vocab->mem.put(vocab->mem.ctx, vocab->tokens);
    vocab->mem.put(vocab->mem.ctx, vocab->slots);
    vocab->tokens = NULL;
    vocab->slots = NULL;
}

uint64_t text_bytes_hash(base_view bytes)
{
    uint64_t h = bytes.n_bytes * 0x9e3779b97f4a7c15u;
    size_t i = 0;
    while (i < bytes.n_bytes) {
        const size_t n = bytes.n_bytes - i < 8 ? bytes.n_bytes - i : 8;
        uint64_t word = 0;
        memcpy(&word, bytes.data + i, n);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        i += n;
    }
    return h;
}

/* The slot that holds bytes, or the free one where they belong. */
static size_t find_slot(const text_vocab *vocab, base_view bytes)
{
    size_t i = text_bytes_hash(bytes) & vocab->mask;
    while (vocab->slots[i] >= 0 &&
           !base_view_equal(text_vocab_bytes(vocab, vocab->slots[i]), bytes)) {
        i = (i + 1) & vocab->mask;
    }
    return i;
}

base_status text_vocab_put(text_vocab *vocab, int32_t id, text_token_kind kind, base_view bytes)
{
    assert(id >= 0 && id < vocab->n_ids && vocab->tokens[id].kind == TEXT_TOKEN_NONE);
    const size_t begin = vocab->blob.n_bytes;
    const base_status st = base_bytes_add(&vocab->blob, bytes.data, bytes.n_bytes);
    if (st != BASE_OK) {
        return st;
    }
    vocab->tokens[id] = (text_vocab_token){begin, (uint32_t)bytes.n_bytes, kind};
    if (kind != TEXT_TOKEN_OPAQUE) {
        const size_t slot = find_slot(vocab, bytes);
        if (vocab->slots[slot] < 0) {
            vocab->slots[slot] = id;
        }
    }
    return BASE_OK;
}

int32_t text_vocab_find(const text_vocab *vocab, base_view bytes)
{
    return vocab->slots[find_slot(vocab, bytes)];
}

/* GPT-2's alphabet: printable characters of Latin-1 stand for themselves, the other 68 bytes are
 * U+0100 and up in order.  -1 if code is not of it. */
static int byte_of(uint32_t code)
{
    if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xac) ||
        (code >= 0xae && code <= 0xff)) {
        return (int)code;
    }
    if (code >= 0x100 && code <= 0x120) {
        return (int)(code - 0x100); /* 00..20 */
    }
    if (code >= 0x121 && code <= 0x142) {
        return (int)(code - 0x121 + 0x7f); /* 7f..a0 */
    }
    return code == 0x143 ? 0xad : -1;
}

base_status text_alphabet_read(base_view written, base_bytes *bytes_out, bool *is_written_out)
{
    const size_t before = bytes_out->n_bytes;
    bool is_written = true;
    for (size_t i = 0; i < written.n_bytes && is_written;) {
        const text_utf8_char c = text_utf8_next(written.data + i, written.n_bytes - i);
        const int byte = c.kind == TEXT_UTF8_VALID ? byte_of(c.code) : -1;
        if (byte < 0) {
            is_written = false;
            bytes_out->n_bytes = before;
        } else {
            const char one = (char)byte;
            const base_status st = base_bytes_add(bytes_out, &one, 1);
            if (st != BASE_OK) {
                bytes_out->n_bytes = before;
                return st;
            }
        }
        i += c.n_bytes;
    }
    *is_written_out = is_written;
    return BASE_OK;
}
