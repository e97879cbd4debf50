#include "coordinator/text/stream.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/tokenizer_json.h"
#include "coordinator/text/utf8.h"

#include <stdlib.h>

#define MAX_DECODED ((size_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void must(bool promise)
{
    if (!promise) {
        abort();
    }
}

static bool has_token(const text_spec *s, int32_t id)
{
    bool found = id >= 0 && id < s->n_ids && s->tokens[id].data != NULL;
    for (size_t i = 0; i < s->n_added; i++) {
        found = found || s->added[i].id == id;
    }
    return found;
}

/* What the header of text_spec promises. */
static void check_spec(const text_spec *s)
{
    must(s->n_ids >= 1 && s->n_ids <= TEXT_MAX_VOCAB);
    for (size_t i = 0; i < s->n_added; i++) {
        const text_spec_added *a = &s->added[i];
        must(a->id >= 0 && a->id < s->n_ids);
        must(a->text.n_bytes >= 1 && a->text.n_bytes <= TEXT_MAX_ADDED_BYTES);
        must(s->tokens[a->id].data == NULL || base_view_equal(s->tokens[a->id], a->text));
    }
    for (size_t i = 0; i < s->n_merges; i++) {
        const text_bpe_merge *m = &s->merges[i];
        must(m->left >= 0 && m->left < s->n_ids && m->right >= 0 && m->right < s->n_ids &&
             m->joined >= 0 && m->joined < s->n_ids);
        const base_view left = s->tokens[m->left];
        const base_view right = s->tokens[m->right];
        const base_view joined = s->tokens[m->joined];
        must(left.n_bytes > 0 && right.n_bytes > 0);
        must(joined.n_bytes == left.n_bytes + right.n_bytes &&
             memcmp(joined.data, left.data, left.n_bytes) == 0 &&
             memcmp(joined.data + left.n_bytes, right.data, right.n_bytes) == 0);
    }
    must(s->n_patterns <= TEXT_MAX_PATTERNS);
    must(s->front.n_ids <= TEXT_MAX_TEMPLATE_IDS && s->behind.n_ids <= TEXT_MAX_TEMPLATE_IDS);
    for (size_t i = 0; i < s->front.n_ids; i++) {
        must(has_token(s, s->front.ids[i]));
    }
    for (size_t i = 0; i < s->behind.n_ids; i++) {
        must(has_token(s, s->behind.ids[i]));
    }
}

/* What a stream gives is what decoding gives, and is text. */
static void check_stream(const text_tokenizer *t, const text_ids *ids)
{
    text_stream *s = NULL;
    int stop = -1;
    base_bytes shown;
    base_bytes streamed;
    base_bytes_init(&shown, MAX_DECODED, &base_heap);
    base_bytes_init(&streamed, MAX_DECODED, &base_heap);
    must(text_stream_create(t, NULL, 0, false, &base_heap, &s) == BASE_OK);
    for (size_t i = 0; i < ids->n_ids; i++) {
        must(text_stream_add(s, ids->ids[i], &streamed, &stop) == BASE_OK);
    }
    must(text_stream_finish(s, &streamed) == BASE_OK);
    must(text_decode_shown(t, ids->ids, ids->n_ids, true, &shown) == BASE_OK);
    must(base_view_equal(base_bytes_view(&shown), base_bytes_view(&streamed)));
    must(text_utf8_valid_prefix(base_bytes_view(&shown)) == shown.n_bytes);
    text_stream_destroy(s);
    base_bytes_reset(&shown);
    base_bytes_reset(&streamed);
}

/* Text without anything that NFC changes comes back from a byte-level tokenizer, whatever its file;
 * an odd pattern may only give up on it.  In the other family a file may well lose spaces. */
static void check_round_trip(const text_tokenizer *t, bool byte_level)
{
    static const char text[] = "hello <s> </s>\n\n  12345 we'll \xc3\xa9\xff\xe2\x82 aaaaaaa\t!";
    const base_view in = {text, sizeof text}; /* with its NUL */
    text_ids ids;
    base_bytes out;
    text_ids_init(&ids, &base_heap);
    base_bytes_init(&out, MAX_DECODED, &base_heap);
    for (int parse = 0; parse < 2; parse++) {
        const text_encode_options options = {.parse_special = parse != 0};
        ids.n_ids = 0;
        base_bytes_drop_front(&out, out.n_bytes);
        const base_status st = text_encode(t, in, options, &ids);
        must(st == BASE_OK || st == BASE_OUT_OF_RANGE);
        if (st == BASE_OK) {
            must(text_decode(t, ids.ids, ids.n_ids, false, &out) == BASE_OK);
            must(!byte_level || base_view_equal(base_bytes_view(&out), in));
            check_stream(t, &ids);
        }
    }
    base_bytes_reset(&out);
    text_ids_reset(&ids);
}

/* Whatever the file, it is refused, or the struct and the tokenizer keep their promises. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    const base_view json = {(const char *)bytes, n_bytes};
    text_spec spec = {0};
    text_tokenizer *t = NULL;
    if (text_spec_read(json, &base_heap, &spec) != BASE_OK) {
        return 0;
    }
    check_spec(&spec);
    const bool byte_level = !spec.byte_fallback;
    text_spec_reset(&spec);
    if (text_tokenizer_create(json, &base_heap, &t) == BASE_OK) {
        check_round_trip(t, byte_level);
    }
    text_tokenizer_destroy(t);
    return 0;
}
