/* Merging against its definition, decode(encode(x)) == x, and that where a SentencePiece-style
 * tokenizer cuts text does not show.
 *
 * Input: one byte with the number of merges, two bytes for each (left and right, as indices into
 * the ids that exist by then; the order of the merges is that of the bytes), the rest is text. */
#include "coordinator/text/bpe.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/tokenizer_json.h"
#include "tests/support/naive_bpe.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_MERGES  64
#define MAX_TEXT    512
#define N_LETTERS   4 /* of text, so that merges meet */
#define MAX_DECODED ((size_t)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void must(bool promise)
{
    if (!promise) {
        abort();
    }
}

static int32_t id_at(uint8_t index, size_t n_joined)
{
    const size_t i = index % (N_LETTERS + n_joined);
    return (int32_t)(i < N_LETTERS ? 'a' + i : 256 + i - N_LETTERS);
}

static void check_merging(const uint8_t *bytes, size_t n_bytes)
{
    text_bpe_merge merges[MAX_MERGES];
    int32_t byte_ids[256];
    char text[MAX_TEXT];
    int32_t want[MAX_TEXT];
    text_bpe bpe;
    text_bpe_scratch scratch;
    const int32_t *ids = NULL;
    size_t n_ids = 0;

    const size_t n_merges = bytes[0] % (MAX_MERGES + 1);
    if (n_bytes < 2 + 2 * n_merges) {
        return;
    }
    for (size_t i = 0; i < n_merges; i++) {
        /* From the back, so that later joins have lower ranks, when the first bit says so. */
        const size_t at = bytes[0] & 0x80 ? n_merges - 1 - i : i;
        merges[at] = (text_bpe_merge){id_at(bytes[1 + 2 * i], i), id_at(bytes[2 + 2 * i], i),
                                      (int32_t)(256 + i)};
    }
    const uint8_t *rest = bytes + 1 + 2 * n_merges;
    size_t n = n_bytes - 1 - 2 * n_merges;
    n = n > MAX_TEXT ? MAX_TEXT : n;
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)('a' + rest[i] % N_LETTERS);
        want[i] = text[i];
    }
    for (int32_t b = 0; b < 256; b++) {
        byte_ids[b] = b;
    }
    must(text_bpe_init(&bpe, byte_ids, merges, n_merges, &base_heap) == BASE_OK);
    text_bpe_scratch_init(&scratch, &base_heap);
    const base_view piece = {text, n};
    must(text_bpe_encode(&bpe, piece, &scratch, &ids, &n_ids) == BASE_OK);
    must(n_ids == naive_merge(merges, n_merges, want, n));
    must(memcmp(ids, want, n_ids * sizeof *want) == 0);
    text_bpe_scratch_reset(&scratch);
    text_bpe_reset(&bpe);
}

#define MARK "\xe2\x96\x81"

static text_spec sp_spec;
static text_tokenizer *sp_tokenizer;

/* Ids 0..255 are the bytes, then come a, b, c and the mark. */
static void make_sp(void)
{
    static const char frame[] =
        "{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
        "\"" MARK
        "\"}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
        "\"pattern\": {\"String\": \"" MARK "\"}, \"content\": \" \"}, {\"type\": "
        "\"ByteFallback\"}, {\"type\": \"Fuse\"}]}, \"model\": {\"type\": \"BPE\", "
        "\"byte_fallback\": true, \"vocab\": {\"a\": 256, \"b\": 257, \"c\": 258, \"" MARK
        "\": 259, \"ab\": 260, \"" MARK "a\": 261, \"b" MARK "\": 262, \"b" MARK
        "a\": 263, \"aa\": 264, \"aaaa\": 265, \"<0x64><0x65>\": 266, \"bc\": 267}, \"merges\": "
        "[\"b c\", \"" MARK " a\", \"b " MARK "\", \"b " MARK
        "a\", \"a b\", \"a a\", \"aa aa\", \"<0x64> <0x65>\", \"b" MARK " a\"]}}";
    json_t *root = json_loads(frame, 0, NULL);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (int b = 0; b < 256; b++) {
        char name[16];
        (void)snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        (void)json_object_set_new(vocab, name, json_integer(b));
    }
    char *text = json_dumps(root, 0);
    must(text_tokenizer_create(base_view_of(text), &base_heap, &sp_tokenizer) == BASE_OK);
    must(text_spec_read(base_view_of(text), &base_heap, &sp_spec) == BASE_OK);
    free(text);
    json_decref(root);
}

/* The whole text is one word, however long the pieces are that it is merged in. */
static void check_cutting(const uint8_t *bytes, size_t n_bytes)
{
    static const int32_t symbols[] = {256, 257, 258, 259, 256, 259, 'd', 'e'};
    static const char letters[] = "abc a de"; /* of symbols, a space for the mark */
    char text[MAX_TEXT];
    int32_t want[MAX_TEXT];
    text_ids ids;
    const text_encode_options options = {0};
    const size_t n = n_bytes > MAX_TEXT ? MAX_TEXT : n_bytes;
    for (size_t i = 0; i < n; i++) {
        text[i] = letters[bytes[i] % 8];
        want[i] = symbols[bytes[i] % 8];
    }
    const base_view view = {text, n};
    const size_t n_want = naive_merge(sp_spec.merges, sp_spec.n_merges, want, n);
    text_ids_init(&ids, &base_heap);
    must(text_encode(sp_tokenizer, view, options, &ids) == BASE_OK);
    must(ids.n_ids == n_want);
    must(n == 0 || memcmp(ids.ids, want, n_want * sizeof *want) == 0);
    text_ids_reset(&ids);
}

/* A tokenizer without normalization, for any bytes. */
static text_tokenizer *make_tokenizer(void)
{
    static const char frame[] =
        "{\"added_tokens\": [{\"id\": 300, \"content\": \"<s>\", \"special\": true}],"
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false},"
        "\"model\": {\"type\": \"BPE\", \"vocab\": {\"ab\": 256, \"abab\": 257, \"aba\": 258},"
        "\"merges\": [\"a b\", \"ab ab\", \"ab a\"]}}";
    text_tokenizer *t = NULL;
    json_t *root = json_loads(frame, 0, NULL);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    int id = 0;
    for (unsigned code = 0x21; code <= 0x143; code++) {
        char name[3] = {(char)code};
        if (code >= 0x80) {
            name[0] = (char)(0xc0 | code >> 6);
            name[1] = (char)(0x80 | (code & 0x3f));
        }
        if (!(code > 0x7e && code < 0xa1) && code != 0xad) {
            (void)json_object_set_new(vocab, name, json_integer(id++));
        }
    }
    char *text = json_dumps(root, 0);
    must(text_tokenizer_create(base_view_of(text), &base_heap, &t) == BASE_OK);
    free(text);
    json_decref(root);
    return t;
}

static void check_round_trip(const text_tokenizer *t, const uint8_t *bytes, size_t n_bytes)
{
    const base_view in = {(const char *)bytes, n_bytes};
    const text_encode_options options = {.parse_special = n_bytes % 2 != 0};
    text_ids ids;
    base_bytes out;
    text_ids_init(&ids, &base_heap);
    base_bytes_init(&out, MAX_DECODED, &base_heap);
    must(text_encode(t, in, options, &ids) == BASE_OK);
    must(text_decode(t, ids.ids, ids.n_ids, false, &out) == BASE_OK);
    must(base_view_equal(base_bytes_view(&out), in));
    base_bytes_reset(&out);
    text_ids_reset(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static text_tokenizer *t;
    if (t == NULL) {
        t = make_tokenizer();
        make_sp();
    }
    if (n_bytes > 0) {
        check_merging(bytes, n_bytes);
    }
    check_round_trip(t, bytes, n_bytes);
    check_cutting(bytes, n_bytes);
    return 0;
}
