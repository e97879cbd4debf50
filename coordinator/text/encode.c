#include "coordinator/text/ids.h"
#include "coordinator/text/nfc.h"
#include "coordinator/text/tokenizer_parts.h"
#include "coordinator/text/utf8.h"

/* Texts repeat their words: a table of the pieces seen in this call saves most of the merging.
 * An entry is one cache line; a piece that does not fit is merged each time. */
#define CACHE_KEY_BYTES  22
#define CACHE_IDS        10
#define CACHE_MAX        8192 /* entries */
#define CACHE_MIN_BYTES  1024 /* of text; below that the table costs more than it saves */
#define CACHE_TEXT_SHARE 16   /* bytes of text for one entry */

typedef struct cache_entry {
    unsigned char n_bytes; /* 0: free */
    unsigned char n_ids;
    char key[CACHE_KEY_BYTES];
    int32_t ids[CACHE_IDS];
} cache_entry;

typedef struct encoder {
    const text_tokenizer *t;
    text_encode_options options;
    text_ids *out;
    size_t n_before; /* ids that were in out before this call */
    text_cutter *cutter;
    text_bpe_scratch scratch;
    base_bytes nfc;
    cache_entry *cache; /* NULL for short texts */
    size_t cache_mask;
} encoder;

static base_status emit(encoder *e, const int32_t *ids, size_t n_ids)
{
    const size_t max_ids = e->options.max_ids;
    if (max_ids > 0 && n_ids > max_ids - (e->out->n_ids - e->n_before)) {
        return BASE_FAIL(BASE_OUT_OF_RANGE, "text of more than %zu tokens", max_ids);
    }
    return text_ids_add(e->out, ids, n_ids);
}

static base_status encode_piece(void *ctx, base_view piece)
{
    encoder *e = ctx;
    const int32_t *ids = NULL;
    size_t n_ids = 0;
    cache_entry *entry = NULL;

    if (e->t->ignore_merges) {
        const int32_t id = text_vocab_find(&e->t->vocab, piece);
        if (id >= 0 && e->t->vocab.tokens[id].kind == TEXT_TOKEN_ORDINARY) {
            return emit(e, &id, 1);
        }
    }
    if (e->cache != NULL && piece.n_bytes <= CACHE_KEY_BYTES) {
        entry = &e->cache[text_bytes_hash(piece) & e->cache_mask];
        if (entry->n_bytes == piece.n_bytes && memcmp(entry->key, piece.data, piece.n_bytes) == 0) {
            return emit(e, entry->ids, entry->n_ids);
        }
    }
    const base_status st = text_bpe_encode(&e->t->bpe, piece, &e->scratch, &ids, &n_ids);
    if (st != BASE_OK) {
        return st;
    }
    if (entry != NULL && n_ids <= CACHE_IDS) {
        entry->n_bytes = (unsigned char)piece.n_bytes;
        entry->n_ids = (unsigned char)n_ids;
        memcpy(entry->key, piece.data, piece.n_bytes);
        memcpy(entry->ids, ids, n_ids * sizeof *ids);
    }
    return emit(e, ids, n_ids);
}

/* Gives each part of text between added tokens to encode_part, and emits the added tokens. */
static base_status split_added(encoder *e, const text_added *added, base_view text,
                               base_status (*encode_part)(encoder *e, base_view part))
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
            st = emit(e, &m.id, 1);
        }
        done = m.end;
    }
    return st;
}

static base_status encode_normalized(encoder *e, base_view part)
{
    return text_cutter_run(e->cutter, part, encode_piece, e);
}

/* run is valid UTF-8. */
static base_status encode_run(encoder *e, base_view run)
{
    base_view normalized = run;
    if (e->t->nfc) {
        const base_status st = text_nfc_apply(run, &e->nfc, &normalized);
        if (st != BASE_OK) {
            return st;
        }
    }
    return split_added(e, &e->t->normalized, normalized, encode_normalized);
}

/* Text without added tokens: runs of valid UTF-8, and bytes that are not, which become a token
 * each and join no neighbour. */
static base_status encode_bytes(encoder *e, base_view text)
{
    base_status st = BASE_OK;
    while (text.n_bytes > 0 && st == BASE_OK) {
        const size_t n_valid = text_utf8_valid_prefix(text);
        size_t n_done = n_valid;
        if (n_valid > 0) {
            const base_view run = {text.data, n_valid};
            st = encode_run(e, run);
        } else {
            n_done = text_utf8_next(text.data, text.n_bytes).n_bytes;
            for (size_t i = 0; i < n_done && st == BASE_OK; i++) {
                st = emit(e, &e->t->bpe.byte_ids[(unsigned char)text.data[i]], 1);
            }
        }
        text.data += n_done;
        text.n_bytes -= n_done;
    }
    return st;
}

static base_status make_cache(encoder *e, size_t n_text_bytes)
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
    encoder e = {.t = t, .options = options, .out = ids_out, .n_before = ids_out->n_ids};

    if (text.n_bytes > TEXT_BPE_MAX_BYTES) {
        return BASE_FAIL(BASE_OUT_OF_RANGE, "text of %zu bytes, allowed %zu", text.n_bytes,
                         TEXT_BPE_MAX_BYTES);
    }
    text_bpe_scratch_init(&e.scratch, &t->mem);
    base_bytes_init(&e.nfc, TEXT_BPE_MAX_BYTES, &t->mem);
    BASE_TRY(st, out, text_cutter_create(t->pretokenizer, &t->mem, &e.cutter));
    BASE_TRY(st, out, make_cache(&e, text.n_bytes));
    if (options.add_special) {
        BASE_TRY(st, out, emit(&e, t->front.ids, t->front.n_ids));
    }
    BASE_TRY(st, out, split_added(&e, &t->raw, text, encode_bytes));
    if (options.add_special) {
        BASE_TRY(st, out, emit(&e, t->behind.ids, t->behind.n_ids));
    }

out:
    if (st != BASE_OK) {
        ids_out->n_ids = e.n_before;
    }
    t->mem.put(t->mem.ctx, e.cache);
    text_cutter_destroy(e.cutter);
    base_bytes_reset(&e.nfc);
    text_bpe_scratch_reset(&e.scratch);
    return st;
}
