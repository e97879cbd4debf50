/* SentencePiece-style tokenizers against what Hugging Face's `tokenizers` gave
 * (tests/golden/make_sp_tokenizer.py), and by their own promises. */
#include "base/json.h"
#include "base/random.h"
#include "coordinator/text/stream.h"
#include "coordinator/text/tokenizer_json.h"
#include "coordinator/text/utf8.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/naive_bpe.h"
#include "tests/support/test.h"
#include "tests/support/tiny_tokenizer.h"

#define FOLDER  "tests/golden/tokenizers/sp"
#define STORIES "models/stories260K-hd64-bf16"

#define MAX_FILE  ((size_t)1 << 20)
#define MAX_OUT   ((size_t)64 << 20)
#define MAX_PATH  1024
#define MAX_SMALL 48 /* bytes of text that are merged by the definition */
#define BYTE_0    3  /* id of <0x00> */

static const text_encode_options plain = {0};
static const text_encode_options all = {.add_special = true, .parse_special = true};

static json_t *read_file(const char *name)
{
    json_t *root = NULL;
    CHECK_STATUS(base_json_read(name, MAX_FILE, &root), BASE_OK);
    return root;
}

static json_t *sp_root(void)
{
    return read_file(FOLDER "/tokenizer.json");
}

static text_tokenizer *sp_tokenizer(void)
{
    text_tokenizer *t = NULL;
    CHECK_STATUS(tiny_create(sp_root(), &base_heap, &t), BASE_OK);
    return t;
}

/* With the prefix that only the beginning of the whole text gets. */
static json_t *first_root(void)
{
    json_t *root = sp_root();
    tiny_set(root, "normalizer", "null");
    tiny_set(root, "pre_tokenizer",
             "{\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\","
             " \"prepend_scheme\": \"first\", \"split\": false}");
    return root;
}

static text_ids ids_of(const json_t *list)
{
    text_ids ids;
    text_ids_init(&ids, &base_heap);
    ids.n_ids = json_array_size(list);
    ids.ids = base_heap.get(base_heap.ctx, (ids.n_ids + 1) * sizeof *ids.ids);
    assert_non_null(ids.ids);
    for (size_t i = 0; i < ids.n_ids; i++) {
        ids.ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    }
    return ids;
}

static base_view text_of(const json_t *object, const char *key)
{
    const json_t *text = json_object_get(object, key);
    assert_true(json_is_string(text));
    return (base_view){json_string_value(text), json_string_length(text)};
}

static void check_text(const char *variant, const char *what, const base_bytes *got, base_view want)
{
    if (!base_view_equal(base_bytes_view(got), want)) {
        fail_msg("%s: %s gave '%s', want '%.*s'", variant, what, got->data == NULL ? "" : got->data,
                 (int)want.n_bytes, want.data);
    }
}

static void stream_all(const text_tokenizer *t, const text_ids *ids, const base_view *stops,
                       size_t n_stops, base_bytes *out)
{
    text_stream *s = NULL;
    int stop = -1;
    CHECK_STATUS(text_stream_create(t, stops, n_stops, false, &base_heap, &s), BASE_OK);
    for (size_t i = 0; i < ids->n_ids; i++) {
        CHECK_STATUS(text_stream_add(s, ids->ids[i], out, &stop), BASE_OK);
    }
    CHECK_STATUS(text_stream_finish(s, out), BASE_OK);
    text_stream_destroy(s);
}

/* All at once with and without special tokens, and one by one. */
static void check_decoding(const text_tokenizer *t, const char *variant, const json_t *vector)
{
    text_ids ids = ids_of(json_object_get(vector, "ids"));
    const base_view decoded = text_of(vector, "decoded");
    const base_view with_special = text_of(vector, "with_special");
    base_bytes out;
    base_bytes_init(&out, MAX_OUT, &base_heap);
    CHECK_STATUS(text_decode_shown(t, ids.ids, ids.n_ids, true, &out), BASE_OK);
    check_text(variant, "decoding", &out, decoded);
    base_bytes_drop_front(&out, out.n_bytes);
    CHECK_STATUS(text_decode_shown(t, ids.ids, ids.n_ids, false, &out), BASE_OK);
    check_text(variant, "decoding with special tokens", &out, with_special);
    base_bytes_drop_front(&out, out.n_bytes);
    stream_all(t, &ids, NULL, 0, &out);
    check_text(variant, "streaming", &out, decoded);
    base_bytes_drop_front(&out, out.n_bytes);
    CHECK_STATUS(text_decode(t, ids.ids, ids.n_ids, true, &out), BASE_OK);
    if (text_utf8_valid_prefix(base_bytes_view(&out)) == out.n_bytes) {
        check_text(variant, "the bytes", &out, decoded);
    }
    base_bytes_reset(&out);
    text_ids_reset(&ids);
}

static void check_encoding(const text_tokenizer *t, const char *variant, const json_t *vector)
{
    text_ids want = ids_of(json_object_get(vector, "ids"));
    text_ids ids;
    const base_view text = text_of(vector, "text");
    text_ids_init(&ids, &base_heap);
    CHECK_STATUS(text_encode(t, text, all, &ids), BASE_OK);
    for (size_t i = 0; i < want.n_ids && i < ids.n_ids; i++) {
        if (ids.ids[i] != want.ids[i]) {
            fail_msg("%s: '%s': token %zu is %d, want %d", variant, text.data, i, ids.ids[i],
                     want.ids[i]);
        }
    }
    assert_int_equal(ids.n_ids, want.n_ids);
    text_ids_reset(&ids);
    text_ids_reset(&want);
}

static void every_way_to_write_spaces_gives_the_ids_and_texts_of_the_vectors(void **state)
{
    (void)state;
    json_t *vectors = read_file(FOLDER "/vectors.json");
    const json_t *variants = json_object_get(vectors, "variants");
    assert_int_equal(json_array_size(variants), 7);
    for (size_t v = 0; v < json_array_size(variants); v++) {
        const json_t *variant = json_array_get(variants, v);
        const json_t *cases = json_object_get(variant, "cases");
        const json_t *decodes = json_object_get(variant, "decodes");
        const char *name = json_string_value(json_object_get(variant, "name"));
        text_tokenizer *t = NULL;
        json_t *root = sp_root();
        assert_int_equal(json_object_update(root, json_object_get(variant, "fields")), 0);
        CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
        assert_true(json_array_size(cases) >= 50 && json_array_size(decodes) >= 15);
        for (size_t i = 0; i < json_array_size(cases); i++) {
            check_encoding(t, name, json_array_get(cases, i));
            check_decoding(t, name, json_array_get(cases, i));
        }
        for (size_t i = 0; i < json_array_size(decodes); i++) {
            check_decoding(t, name, json_array_get(decodes, i));
        }
        text_tokenizer_destroy(t);
    }
    base_json_free(vectors);
}

/* The symbols of text as the definition has them: characters of the vocabulary, else bytes. */
static size_t naive_symbols(const json_t *vocab, base_view text, int32_t *ids)
{
    size_t n = 0;
    for (size_t at = 0; at < text.n_bytes;) {
        const size_t n_bytes = text_utf8_next(text.data + at, text.n_bytes - at).n_bytes;
        const json_t *id = json_object_getn(vocab, text.data + at, n_bytes);
        for (size_t i = 0; i < (id != NULL ? 1 : n_bytes); i++) {
            ids[n++] = id != NULL ? (int32_t)json_integer_value(id)
                                  : BYTE_0 + (unsigned char)text.data[at + i];
        }
        at += n_bytes;
    }
    return n;
}

/* Where text is cut must not show: the whole of it is one word. */
static void a_text_merges_as_one_word(void **state)
{
    (void)state;
    static const char *const units[] = {"t",
                                        "h",
                                        "e",
                                        "a",
                                        "n",
                                        "d",
                                        "\xe2\x96\x81",
                                        "\xe2\x96\x81",
                                        "\xe2\x96\x81",
                                        "\n",
                                        "\xf4\x8f\xbf\xbf",
                                        "i"};
    text_tokenizer *t = NULL;
    text_spec spec = {0};
    json_t *root = sp_root();
    tiny_set(root, "normalizer.normalizers",
             "[{\"type\": \"Replace\", \"pattern\": {\"String\": "
             "\" \"}, \"content\": \"\xe2\x96\x81\"}]");
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    char *json = json_dumps(root, 0);
    assert_non_null(json);
    CHECK_STATUS(text_spec_read(base_view_of(json), &base_heap, &spec), BASE_OK);
    CHECK_STATUS(text_tokenizer_create(base_view_of(json), &base_heap, &t), BASE_OK);
    size_t n_merged = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        char text[4 * MAX_SMALL] = "";
        int32_t want[4 * MAX_SMALL];
        text_ids ids;
        size_t n = 0;
        const uint64_t n_units = 1 + base_random_u64(seed, 0, 0) % MAX_SMALL;
        for (uint64_t i = 0; i < n_units; i++) {
            const char *unit =
                units[base_random_u64(seed, 1, i) % (sizeof units / sizeof units[0])];
            memcpy(text + n, unit, strlen(unit));
            n += strlen(unit);
        }
        const base_view view = {text, n};
        const size_t n_symbols = naive_symbols(vocab, view, want);
        const size_t n_want = naive_merge(spec.merges, spec.n_merges, want, n_symbols);
        text_ids_init(&ids, &base_heap);
        CHECK_STATUS(text_encode(t, view, plain, &ids), BASE_OK);
        assert_int_equal(ids.n_ids, n_want);
        assert_memory_equal(ids.ids, want, n_want * sizeof *want);
        n_merged += n_symbols - n_want;
        text_ids_reset(&ids);
    }
    assert_true(n_merged > 1000);
    text_tokenizer_destroy(t);
    text_spec_reset(&spec);
    free(json);
    json_decref(root);
}

static void check_round_trip(const text_tokenizer *t, base_view text)
{
    text_ids ids;
    base_bytes back;
    text_ids_init(&ids, &base_heap);
    base_bytes_init(&back, MAX_OUT, &base_heap);
    CHECK_STATUS(text_encode(t, text, plain, &ids), BASE_OK);
    CHECK_STATUS(text_decode(t, ids.ids, ids.n_ids, false, &back), BASE_OK);
    assert_true(base_view_equal(base_bytes_view(&back), text));
    base_bytes_reset(&back);
    text_ids_reset(&ids);
}

static void hostile_bytes_come_back_as_they_were(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\xc2",         "\xe2\x96",     "\xf0\x9f\x98",     "\xc0\xaf",
        "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
        "a\x80z",       "\xff\xfe",     "\xe2\x28\xa1",     " the\xe2\x82 the",
        "\xff the",     "  \xff  ",
    };
    text_tokenizer *t = sp_tokenizer();
    for (unsigned b = 0; b < 256; b++) {
        const char one = (char)b;
        check_round_trip(t, (base_view){&one, 1});
        const char three[] = {' ', one, 'e'};
        check_round_trip(t, (base_view){three, 3});
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        check_round_trip(t, base_view_of(bad[i]));
    }
    text_tokenizer_destroy(t);
}

/* Long runs would show a quadratic step by the time limit of the test. */
static void much_of_anything_comes_back(void **state)
{
    (void)state;
    static const char *const units[] = {
        "a",    " ",   "\n", "\x80",     "\xff", "\xe2\x82", "\xf0\x9f\x98\x80",
        " the", "e t", "<s", "\xcc\x96",
    };
    const size_t n = (size_t)1 << 18;
    text_tokenizer *t = sp_tokenizer();
    char *text = base_heap.get(base_heap.ctx, n);
    assert_non_null(text);
    check_round_trip(t, (base_view){text, n}); /* NUL bytes */
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        for (size_t i = 0; i < n; i++) {
            text[i] = units[u][i % strlen(units[u])];
        }
        check_round_trip(t, (base_view){text, n});
    }
    for (size_t i = 0; i < n; i++) {
        const uint64_t byte = base_random_u64(7, 0, i) % 255;
        text[i] = (char)(byte + (byte >= 0xe2)); /* none of U+2581, which is a space to tokens */
    }
    check_round_trip(t, (base_view){text, n});
    base_heap.put(base_heap.ctx, text);
    text_tokenizer_destroy(t);
}

static void added_tokens_are_found_after_normalization_as_they_look_there(void **state)
{
    (void)state;
    text_tokenizer *t = sp_tokenizer();
    text_ids ids;
    const int32_t note = text_tokenizer_find(t, base_view_of(" <note>"));
    assert_true(note > 0);
    text_ids_init(&ids, &base_heap);
    /* With the prefix of the normalizer it is U+2581<note>, which the text begins with. */
    CHECK_STATUS(text_encode(t, base_view_of("<note>"), plain, &ids), BASE_OK);
    assert_int_equal(ids.n_ids, 1);
    assert_int_equal(ids.ids[0], note);
    CHECK_STATUS(text_encode(t, base_view_of("a<note>"), plain, &ids), BASE_OK);
    assert_true(ids.n_ids > 3 && ids.ids[ids.n_ids - 1] != note);
    text_ids_reset(&ids);
    text_tokenizer_destroy(t);
}

static void tokens_are_found_by_what_they_decode_to(void **state)
{
    (void)state;
    text_tokenizer *t = sp_tokenizer();
    const int32_t a = text_tokenizer_find(t, base_view_of("A"));
    assert_true(a > BYTE_0 + 255); /* the letter, not its byte */
    assert_int_equal(text_tokenizer_find(t, base_view_of("\n")), BYTE_0 + '\n');
    assert_int_equal(text_tokenizer_find(t, base_view_of("</s>")), 2);
    assert_true(text_tokenizer_find(t, base_view_of(" the")) > 0);
    assert_int_equal(text_tokenizer_find(t, base_view_of("\xe2\x96\x81the")), -1);
    text_tokenizer_destroy(t);
}

static void a_stream_gives_a_run_of_bytes_when_it_is_whole(void **state)
{
    (void)state;
    static const unsigned char euro[] = {0xe2, 0x82, 0xac};
    text_tokenizer *t = sp_tokenizer();
    text_stream *s = NULL;
    base_bytes out;
    int stop = 7;
    const int32_t the = text_tokenizer_find(t, base_view_of(" the"));
    base_bytes_init(&out, MAX_OUT, &base_heap);
    CHECK_STATUS(text_stream_create(t, NULL, 0, false, &base_heap, &s), BASE_OK);
    CHECK_STATUS(text_stream_add(s, 1, &out, &stop), BASE_OK);
    CHECK_STATUS(text_stream_add(s, the, &out, &stop), BASE_OK);
    assert_string_equal(out.data, "the"); /* the space in front of the text is gone */
    for (size_t i = 0; i < sizeof euro; i++) {
        CHECK_STATUS(text_stream_add(s, BYTE_0 + euro[i], &out, &stop), BASE_OK);
        CHECK_STATUS(text_stream_add(s, 2, &out, &stop), BASE_OK); /* special: no text, no end */
        assert_string_equal(out.data, "the");
    }
    CHECK_STATUS(text_stream_add(s, the, &out, &stop), BASE_OK);
    assert_string_equal(out.data, "the\xe2\x82\xac the"); /* and only that space */
    CHECK_STATUS(text_stream_add(s, BYTE_0 + 'x', &out, &stop), BASE_OK);
    CHECK_STATUS(text_stream_add(s, BYTE_0 + 0xff, &out, &stop), BASE_OK);
    CHECK_STATUS(text_stream_finish(s, &out), BASE_OK);
    assert_string_equal(out.data, "the\xe2\x82\xac the" TEXT_REPLACEMENT TEXT_REPLACEMENT);
    assert_int_equal(stop, -1);
    text_stream_destroy(s);
    base_bytes_reset(&out);
    text_tokenizer_destroy(t);
}

static void a_stop_string_in_bytes_cuts_the_text_even_at_its_end(void **state)
{
    (void)state;
    text_tokenizer *t = sp_tokenizer();
    const int32_t the = text_tokenizer_find(t, base_view_of(" the"));
    int32_t made[] = {the, BYTE_0 + '\n', BYTE_0 + 'x', the};
    const base_view stop = {"\n", 1};
    for (size_t n = 2; n <= 4; n++) {
        const text_ids ids = {.ids = made, .n_ids = n};
        base_bytes out;
        base_bytes_init(&out, MAX_OUT, &base_heap);
        stream_all(t, &ids, &stop, 1, &out);
        assert_string_equal(out.data, "the");
        base_bytes_reset(&out);
    }
    text_tokenizer_destroy(t);
}

static void what_is_not_supported_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        bool first; /* Metaspace, else the normalizer */
        const char *path;
        const char *value;
        const char *named;
    } bends[] = {
        {false, "model.ignore_merges", "true", "ignore_merges"},
        {false, "model.byte_fallback", "false", "Prepend"},
        {false, "normalizer", "{\"type\": \"NFKC\"}", "NFKC"},
        {false, "normalizer", "null", "normalizer"},
        {false, "normalizer.normalizers.0.prepend", "\"_\"", "prepend"},
        {false, "normalizer.normalizers.2",
         "{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}", "two Prepend"},
        {false, "normalizer.normalizers.1",
         "{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}", "two Prepend"},
        {false, "normalizer.normalizers.1.content", "\"_\"", "content"},
        {false, "normalizer.normalizers.1.pattern", "{\"Regex\": \" +\"}", "String"},
        {false, "pre_tokenizer", "{\"type\": \"ByteLevel\"}", "ByteLevel"},
        {false, "pre_tokenizer", "{\"type\": \"Metaspace\"}", "Metaspace"},
        {false, "pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}}", "'a'"},
        {true, "pre_tokenizer.replacement", "\"_\"", "replacement"},
        {true, "pre_tokenizer.prepend_scheme", "\"last\"", "last"},
        {true, "pre_tokenizer.add_prefix_space", "false", "add_prefix_space"},
        {true, "normalizer", "{\"type\": \"Prepend\", \"prepend\": \"\xe2\x96\x81\"}", "Metaspace"},
        {false, "decoder", "null", "decoder"},
        {false, "decoder", "{\"type\": \"ByteLevel\"}", "decoder"},
        {false, "decoder.decoders.2", "{\"type\": \"Strip\"}", "Fuse"},
        {false, "decoder.decoders.0.content", "\"_\"", "content"},
        {false, "decoder.decoders.3.start", "2", "start"},
        {false, "decoder.decoders.3.stop", "1", "stop"},
        {false, "decoder.decoders.3.content", "\"_\"", "content"},
        {false, "decoder.decoders.4", "{\"type\": \"Fuse\"}", "Sequence"},
        {false, "added_tokens.5", "{\"id\": 900, \"content\": \"<0x41>\"}", "<0x41>"},
        {false, "added_tokens.3.lstrip", "true", "lstrip"},
    };
    for (size_t i = 0; i < sizeof bends / sizeof bends[0]; i++) {
        text_tokenizer *t = NULL;
        json_t *root = bends[i].first ? first_root() : sp_root();
        tiny_set(root, bends[i].path, bends[i].value);
        const base_status st = tiny_create(root, &base_heap, &t);
        if (st != BASE_BAD_FILE) {
            fail_msg("%s = %s gave %s", bends[i].path, bends[i].value, base_status_name(st));
        }
        assert_null(t);
        CHECK_ERROR_NAMES(bends[i].named);
    }
    text_tokenizer *t = NULL;
    json_t *root = sp_root();
    json_object_del(json_object_get(json_object_get(root, "model"), "vocab"), "<0x7F>");
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("0x7f");
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    static const char text[] = "<note>a <tool>the\n\xff \xf0\x9f\x98\x80 the the end";
    json_t *root = sp_root();
    char *json = json_dumps(root, 0);
    json_decref(root);
    assert_non_null(json);
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        text_tokenizer *t = NULL;
        text_ids ids;
        base_bytes out;
        text_ids_init(&ids, &mem);
        base_bytes_init(&out, MAX_OUT, &mem);
        base_status st = text_tokenizer_create(base_view_of(json), &mem, &t);
        if (st == BASE_OK) {
            st = text_encode(t, base_view_of(text), plain, &ids);
        }
        if (st == BASE_OK) {
            st = text_decode_shown(t, ids.ids, ids.n_ids, false, &out);
        }
        assert_true(st == BASE_OK || st == BASE_NO_MEMORY);
        assert_true(st == BASE_OK || out.n_bytes == 0);
        base_bytes_reset(&out);
        text_ids_reset(&ids);
        text_tokenizer_destroy(t);
        assert_int_equal(f.n_live, 0);
        if (f.n_calls <= k) {
            assert_true(k > 20);
            assert_int_equal(st, BASE_OK);
            break;
        }
    }
    free(json);
}

/* Its ids come from another implementation. */
static void the_stories_tokenizer_reads_and_writes_its_golden_text(void **state)
{
    (void)state;
    static const int32_t once[] = {1, 403, 407, 261, 378};
    const char *fixtures = getenv("ROPEWALK_FIXTURES");
    char path[MAX_PATH];
    json_t *root = NULL;
    json_t *golden = NULL;
    text_tokenizer *t = NULL;
    text_ids ids;
    base_bytes out;
    fixtures = fixtures != NULL ? fixtures : "../shared/fixtures";
    (void)snprintf(path, sizeof path, "%s/" STORIES "/tokenizer.json", fixtures);
    if (base_json_read(path, MAX_FILE, &root) == BASE_NOT_FOUND) {
        print_message("skipped: no %s (set ROPEWALK_FIXTURES)\n", path);
        skip();
    }
    (void)snprintf(path, sizeof path, "%s/" STORIES "/golden_greedy.json", fixtures);
    CHECK_STATUS(base_json_read(path, MAX_FILE, &golden), BASE_OK);
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
    text_ids_init(&ids, &base_heap);
    CHECK_STATUS(text_encode(t, base_view_of("Once upon a time"), all, &ids), BASE_OK);
    assert_int_equal(ids.n_ids, sizeof once / sizeof once[0]);
    assert_memory_equal(ids.ids, once, sizeof once);
    text_ids_reset(&ids);
    ids = ids_of(json_object_get(golden, "greedy_ids"));
    base_bytes_init(&out, MAX_OUT, &base_heap);
    stream_all(t, &ids, NULL, 0, &out);
    check_text("stories", "streaming", &out, text_of(golden, "text"));
    base_bytes_reset(&out);
    text_ids_reset(&ids);
    base_json_free(golden);
    text_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_to_write_spaces_gives_the_ids_and_texts_of_the_vectors),
        cmocka_unit_test(a_text_merges_as_one_word),
        cmocka_unit_test(hostile_bytes_come_back_as_they_were),
        cmocka_unit_test(much_of_anything_comes_back),
        cmocka_unit_test(added_tokens_are_found_after_normalization_as_they_look_there),
        cmocka_unit_test(tokens_are_found_by_what_they_decode_to),
        cmocka_unit_test(a_stream_gives_a_run_of_bytes_when_it_is_whole),
        cmocka_unit_test(a_stop_string_in_bytes_cuts_the_text_even_at_its_end),
        cmocka_unit_test(what_is_not_supported_is_refused_by_name),
        cmocka_unit_test(every_failed_allocation_is_reported),
        cmocka_unit_test(the_stories_tokenizer_reads_and_writes_its_golden_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
