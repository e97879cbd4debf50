#include "coordinator/text/encoding.h"
#include "coordinator/text/ids.h"
#include "coordinator/text/tokenizer_parts.h"

/* Texts repeat their words: a table of the pieces seen in this call saves most of the merging.
 * An entry is one cache line; a piece that does not fit is merged each time. */
#define CACHE_KEY_BYTES  22
#define CACHE_IDS        10
#define CACHE_MAX        8192 /* entries */
#define CACHE_MIN_BYTES  1024 /* of text; below that the table costs more than it saves */
#define CACHE_TEXT_SHARE 16   /* bytes of text for one entry */

struct text_piece_cache {
    unsigned char n_bytes; /* 0: free */
    unsigned char n_ids;
    char key[CACHE_KEY_BYTES];
    int32_t ids[CACHE_IDS];
};

base_status text_encoding_emit(text_encoding *e, const int32_t *ids, size_t n_ids)
{
    const size_t max_ids = e->options.max_ids;
    if (max_ids > 0 && n_ids > max_ids - (e->out->n_ids - e->n_before)) {
        return BASE_FAIL(BASE_OUT_OF_RANGE, "text of more than %zu tokens", max_ids);
    }
    return text_ids_add(e->out, ids, n_ids);
}

base_status text_encoding_piece(void *encoding, base_view piece)
{
    text_encoding *e = encoding;
    const int32_t *ids = NULL;
    size_t n_ids = 0;
    text_piece_cache *entry = NULL;

    if (e->t->ignore_merges) {
        const int32_t id = text_vocab_find(&e->t->vocab, piece);
        if (id >= 0 && e->t->vocab.tokens[id].kind == TEXT_TOKEN_ORDINARY) {
            return text_encoding_emit(e, &id, 1);
        }
    }
    if (e->cache != NULL && piece.n_bytes <= CACHE_KEY_BYTES) {
        entry = &e->cache[text_bytes_hash(piece) & e->cache_mask];
        if (entry->n_bytes == piece.n_bytes && memcmp(entry->key, piece.data, piece.n_bytes) == 0) {
            return text_encoding_emit(e, entry->ids, entry->n_ids);
        }
    }
    const base_status st = e->t->family->merge(e->t, piece, &e->scratch, &ids, &n_ids);
    if (st != BASE_OK) {
        return st;
    }
    if (entry != NULL && n_ids <= CACHE_IDS) {
        entry->n_bytes = (unsigned char)piece.n_bytes;
        entry->n_ids = (unsigned char)n_ids;
        memcpy(entry->key, piece.data, piece.n_bytes);
        memcpy(entry->ids, ids, n_ids * sizeof *ids);
    }
    return text_encoding_emit(e, ids, n_ids);
}

base_status text_encoding_emit_bytes(text_encoding *e, base_view bytes)
{
    base_status st = BASE_OK;
    for (size_t i = 0; i < bytes.n_bytes && st == BASE_OK; i++) {
        st = text_encoding_emit(e, &e->t->bpe.byte_ids[(unsigned char)bytes.data[i]], 1);
    }
    return st;
}

base_status text_encoding_split(text_encoding *e, const text_added *added, base_view text,
                                base_status (*encode_part)(text_encoding *e, base_view part))
{
    base_status st = BASE_OK;
    size_t done = 0;
    while (done < text.n_bytes && st == BASE_OK) {
        const text_added_match m = text_added_find(added, text, done, e->options.parse_special);
        const base_view part = {text.data + done, m.begin - done};
        if (part.n_bytes > 0) {
            st = encode_part(e, part);
        }
        if (st == BASE_OK && m.end > m.begin) {
            st = text_encoding_emit(e, &m.id, 1);
        }
        done = m.end;
    }
    return st;
}

static base_status make_cache(text_encoding *e, size_t n_text_bytes)
{
    size_t n_entries = 64;
    if (n_text_bytes < CACHE_MIN_BYTES) {
        return BASE_OK;
    }
    while (n_entries < CACHE_MAX && n_entries < n_text_bytes / CACHE_TEXT_SHARE) {
        n_entries *= 2;
    }
    e->cache = e->t->mem.get(e->t->mem.ctx, n_entries * sizeof *e->cache);
    if (e->cache == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "encoding %zu bytes", n_text_bytes);
    }
    e->cache_mask = n_entries - 1;
    return BASE_OK;
}

base_status text_encode(const text_tokenizer *t, base_view text, text_encode_options options,
                        text_ids *ids_out)
{
    base_status st = BASE_OK;
    text_encoding e = {
        .t = t, .options = options, .text = text, .out = ids_out, .n_before = ids_out->n_ids};

    if (text.n_bytes > TEXT_BPE_MAX_BYTES) {
        return BASE_FAIL(BASE_OUT_OF_RANGE, "text of %zu bytes, allowed %zu", text.n_bytes,
                         TEXT_BPE_MAX_BYTES);
    }
    text_bpe_scratch_init(&e.scratch, &t->mem);
    base_bytes_init(&e.normalized, TEXT_BPE_MAX_BYTES, &t->mem);
    BASE_TRY(st, out, text_cutter_create(t->pretokenizer, &t->mem, &e.cutter));
    BASE_TRY(st, out, make_cache(&e, text.n_bytes));
    if (options.add_special) {
        BASE_TRY(st, out, text_encoding_emit(&e, t->front.ids, t->front.n_ids));
    }
    BASE_TRY(st, out, text_encoding_split(&e, &t->raw, text, t->family->encode));
    if (options.add_special) {
        BASE_TRY(st, out, text_encoding_emit(&e, t->behind.ids, t->behind.n_ids));
    }

out:
    if (st != BASE_OK) {
        ids_out->n_ids = e.n_before;
    }
    t->mem.put(t->mem.ctx, e.cache);
    text_cutter_destroy(e.cutter);
    base_bytes_reset(&e.normalized);
    text_bpe_scratch_reset(&e.scratch);
    return st;
}
