#include "coordinator/text/shown.h"
#include "coordinator/text/tokenizer_parts.h"

/* Takes back what was added behind n_bytes. */
static void cut_back(base_bytes *text, size_t n_bytes)
{
    if (text->n_bytes > n_bytes) {
        text->n_bytes = n_bytes;
        text->data[n_bytes] = '\0';
    }
}

base_status text_decode(const text_tokenizer *t, const int32_t *ids, size_t n_ids,
                        bool skip_special, base_bytes *text_out)
{
    base_status st = BASE_OK;
    const size_t before = text_out->n_bytes;
    bool strips = t->spaces.strip;

    for (size_t i = 0; i < n_ids; i++) {
        BASE_TRY(st, out, text_tokenizer_check_id(t, ids[i], i));
        base_view bytes = text_vocab_bytes(&t->vocab, ids[i]);
        if (bytes.n_bytes == 0 || (skip_special && text_tokenizer_is_special(t, ids[i]))) {
            continue;
        }
        if (strips && bytes.data[0] == ' ') {
            bytes.data++;
            bytes.n_bytes--;
        }
        strips = false;
        BASE_TRY(st, out, base_bytes_add(text_out, bytes.data, bytes.n_bytes));
    }
out:
    if (st != BASE_OK) {
        cut_back(text_out, before);
    }
    return st;
}

base_status text_decode_shown(const text_tokenizer *t, const int32_t *ids, size_t n_ids,
                              bool skip_special, base_bytes *text_out)
{
    base_status st = BASE_OK;
    const size_t before = text_out->n_bytes;
    text_shown shown;

    text_shown_init(&shown, t, skip_special, &t->mem);
    for (size_t i = 0; i < n_ids; i++) {
        BASE_TRY(st, out, text_tokenizer_check_id(t, ids[i], i));
        BASE_TRY(st, out, text_shown_add(&shown, ids[i], text_out));
    }
    BASE_TRY(st, out, text_shown_finish(&shown, text_out));
out:
    if (st != BASE_OK) {
        cut_back(text_out, before);
    }
    text_shown_reset(&shown);
    return st;
}
