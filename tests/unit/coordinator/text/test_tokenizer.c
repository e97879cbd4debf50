#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "tests/support/tiny_tokenizer.h"

#define MAX_DECODED ((size_t)64 << 20)

static const text_encode_options plain = {0};

static base_view view(const char *data, size_t n_bytes)
{
    return (base_view){data, n_bytes};
}

/* Encodes text and compares with ids. */
static void check_ids(const text_tokenizer *t, const char *text, text_encode_options options,
                      const int32_t *want, size_t n_want)
{
    text_ids ids;
    text_ids_init(&ids, &base_heap);
    CHECK_STATUS(text_encode(t, base_view_of(text), options, &ids), BASE_OK);
    assert_int_equal(ids.n_ids, n_want);
    for (size_t i = 0; i < n_want; i++) {
        assert_int_equal(ids.ids[i], want[i]);
    }
    text_ids_reset(&ids);
}

#define CHECK_IDS(t, text, options, ...)                                          \
    do {                                                                          \
        const int32_t want_[] = {__VA_ARGS__};                                    \
        check_ids((t), (text), (options), want_, sizeof want_ / sizeof want_[0]); \
    } while (0)

static void check_round_trip(const text_tokenizer *t, base_view text)
{
    text_ids ids;
    base_bytes back;
    text_ids_init(&ids, &base_heap);
    base_bytes_init(&back, MAX_DECODED, &base_heap);
    CHECK_STATUS(text_encode(t, text, plain, &ids), BASE_OK);
    CHECK_STATUS(text_decode(t, ids.ids, ids.n_ids, false, &back), BASE_OK);
    assert_true(base_view_equal(base_bytes_view(&back), text));
    base_bytes_reset(&back);
    text_ids_reset(&ids);
}

static void merges_go_by_rank_within_a_piece(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    const int32_t h = text_tokenizer_find(t, base_view_of("h"));
    CHECK_IDS(t, "hello", plain, TINY_HELLO);
    CHECK_IDS(t, "hellh", plain, 258, h);
    CHECK_IDS(t, "hello w", plain, TINY_HELLO, 260);
    CHECK_IDS(t, "aaaaa", plain, 262, text_tokenizer_find(t, base_view_of("a")));
    check_ids(t, "", plain, NULL, 0);
    text_tokenizer_destroy(t);
}

static void ignore_merges_takes_a_whole_piece_from_the_vocabulary(void **state)
{
    (void)state;
    text_tokenizer *t = NULL;
    json_t *root = tiny_root();
    tiny_set(root, "model.vocab.hey", "300");
    tiny_set(root, "model.vocab.<s>", "263");
    tiny_set(root, "model.ignore_merges", "true");
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
    CHECK_IDS(t, "hey", plain, 300);
    CHECK_IDS(t, "heyh", plain, TINY_HE, text_tokenizer_find(t, base_view_of("y")),
              text_tokenizer_find(t, base_view_of("h")));
    text_ids ids;
    text_ids_init(&ids, &base_heap);
    CHECK_STATUS(text_encode(t, base_view_of("<s>"), plain, &ids), BASE_OK);
    assert_int_equal(ids.n_ids, 3); /* never the special token */
    text_ids_reset(&ids);
    text_tokenizer_destroy(t);
}

static void special_tokens_are_read_only_when_asked_for(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    const text_encode_options parse = {.parse_special = true};
    const text_encode_options both = {.parse_special = true, .add_special = true};
    const int32_t lt = text_tokenizer_find(t, base_view_of("<"));
    const int32_t s = text_tokenizer_find(t, base_view_of("s"));
    const int32_t gt = text_tokenizer_find(t, base_view_of(">"));
    CHECK_IDS(t, "<s>hello</s>", parse, TINY_BOS, TINY_HELLO, TINY_EOS);
    CHECK_IDS(t, "<s>", plain, lt, s, gt);
    CHECK_IDS(t, "<s>", both, TINY_BOS, TINY_BOS);
    CHECK_IDS(t, "<tool>he<tool", plain, TINY_TOOL, TINY_HE, lt,
              text_tokenizer_find(t, base_view_of("t")), text_tokenizer_find(t, base_view_of("o")),
              text_tokenizer_find(t, base_view_of("o")), text_tokenizer_find(t, base_view_of("l")));
    CHECK_IDS(t, "<<s>", parse, lt, TINY_BOS);
    text_tokenizer_destroy(t);
}

static void the_longest_added_token_wins(void **state)
{
    (void)state;
    text_tokenizer *t = NULL;
    json_t *root = tiny_root();
    tiny_set(root, "added_tokens.3",
             "{\"id\": 266, \"content\": \"<s>hello\", \"special\": false}");
    tiny_set(
        root, "added_tokens.4",
        "{\"id\": 267, \"content\": \"<s>\xc3\xa9\", \"special\": false, \"normalized\": false}");
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
    const text_encode_options parse = {.parse_special = true};
    /* 266 is normalized, so <s> is taken out of the raw text before it. */
    CHECK_IDS(t, "<s>hello", parse, TINY_BOS, TINY_HELLO);
    CHECK_IDS(t, "<s>hello", plain, 266);
    CHECK_IDS(t, "<s>\xc3\xa9", parse, 267);
    text_tokenizer_destroy(t);
}

static void the_template_goes_around_the_text(void **state)
{
    (void)state;
    text_tokenizer *t = NULL;
    json_t *root = tiny_root();
    const text_encode_options add = {.add_special = true};
    tiny_set(root, "post_processor.single.2", "{\"SpecialToken\": {\"id\": \"</s>\"}}");
    tiny_set(root, "post_processor.special_tokens.</s>", "{\"ids\": [264, 265]}");
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
    CHECK_IDS(t, "he", add, TINY_BOS, TINY_HE, TINY_EOS, TINY_TOOL);
    CHECK_IDS(t, "", add, TINY_BOS, TINY_EOS, TINY_TOOL);
    text_tokenizer_destroy(t);
}

static void max_ids_is_a_limit_of_this_call_and_leaves_the_ids_alone(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    text_ids ids;
    const text_encode_options two = {.max_ids = 2};
    const text_encode_options two_bos = {.max_ids = 2, .add_special = true};
    text_ids_init(&ids, &base_heap);
    CHECK_STATUS(text_encode(t, base_view_of("hello"), plain, &ids), BASE_OK);
    CHECK_STATUS(text_encode(t, base_view_of("hello w"), two, &ids), BASE_OK);
    assert_int_equal(ids.n_ids, 3);
    CHECK_STATUS(text_encode(t, base_view_of("hello w"), two_bos, &ids), BASE_OUT_OF_RANGE);
    CHECK_STATUS(text_encode(t, base_view_of("hello wx"), two, &ids), BASE_OUT_OF_RANGE);
    CHECK_STATUS(text_encode(t, base_view_of("\xff\xff\xff"), two, &ids), BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("2");
    assert_int_equal(ids.n_ids, 3);
    assert_int_equal(ids.ids[0], TINY_HELLO);
    text_ids_reset(&ids);
    text_tokenizer_destroy(t);
}

static void decode_refuses_ids_outside_the_vocabulary_and_leaves_the_text_alone(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    base_bytes out;
    base_bytes_init(&out, 12, &base_heap);
    const int32_t good[] = {TINY_BOS, TINY_HELLO, TINY_TOOL};
    assert_int_equal(text_tokenizer_vocab_size(t), TINY_N_IDS);
    for (int i = 0; i < 2; i++) {
        const int32_t bad[] = {TINY_HELLO, i == 0 ? -1 : TINY_N_IDS};
        CHECK_STATUS(text_decode(t, bad, 2, false, &out), BASE_BAD_INPUT);
        assert_int_equal(out.n_bytes, 0);
    }
    CHECK_ERROR_NAMES("266");
    CHECK_STATUS(text_decode(t, good, 3, true, &out), BASE_OK);
    assert_string_equal(out.data, "hello<tool>");
    CHECK_STATUS(text_decode(t, good, 3, false, &out), BASE_OUT_OF_RANGE);
    assert_string_equal(out.data, "hello<tool>");
    base_bytes_reset(&out);
    assert_true(text_tokenizer_is_special(t, TINY_EOS));
    assert_false(text_tokenizer_is_special(t, TINY_TOOL));
    assert_false(text_tokenizer_is_special(t, TINY_HE));
    assert_false(text_tokenizer_is_special(t, -1));
    assert_false(text_tokenizer_is_special(t, TINY_N_IDS));
    assert_int_equal(text_tokenizer_find(t, base_view_of("</s>")), TINY_EOS);
    assert_int_equal(text_tokenizer_find(t, base_view_of(" w")), 260);
    assert_int_equal(text_tokenizer_find(t, base_view_of("xyz")), -1);
    text_tokenizer_destroy(t);
}

static void normalization_makes_composed_and_decomposed_text_alike(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    text_ids composed;
    text_ids decomposed;
    text_ids_init(&composed, &base_heap);
    text_ids_init(&decomposed, &base_heap);
    CHECK_STATUS(text_encode(t, base_view_of("\xc3\xa9 x"), plain, &composed), BASE_OK);
    CHECK_STATUS(text_encode(t, base_view_of("e\xcc\x81 x"), plain, &decomposed), BASE_OK);
    assert_int_equal(composed.n_ids, decomposed.n_ids);
    assert_memory_equal(composed.ids, decomposed.ids, composed.n_ids * sizeof(int32_t));
    text_ids_reset(&composed);
    text_ids_reset(&decomposed);
    text_tokenizer_destroy(t);
}

static void hostile_bytes_come_back_as_they_were(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\xc2",         "\xe2\x82",     "\xf0\x9f\x98",     "\xc0\xaf",
        "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
        "a\x80z",       "\xff\xfe",     "\xe2\x28\xa1",     "hello\xe2\x82hello",
    };
    text_tokenizer *t = tiny_tokenizer();
    for (unsigned b = 0; b < 256; b++) {
        const char one = (char)b;
        check_round_trip(t, view(&one, 1));
        const char three[] = {'h', one, 'e'};
        check_round_trip(t, view(three, 3));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        check_round_trip(t, base_view_of(bad[i]));
    }
    text_tokenizer_destroy(t);
}

/* Long runs would show a quadratic step by the time limit of the test. */
static void a_megabyte_of_anything_comes_back(void **state)
{
    (void)state;
    static const char *const units[] = {
        "a",        " ",  "\n",     "\x80",     "\xff",         "\xc3",
        "\xe2\x82", "<",  "\xf0",   "\xed\xa0", "\xe7\x9a\x84", "\xf0\x9f\x98\x80",
        " a\n",     "<s", "hello ", "\xcc\x96",
    };
    const size_t n = (size_t)1 << 20;
    text_tokenizer *t = tiny_tokenizer();
    char *text = base_heap.get(base_heap.ctx, n);
    assert_non_null(text);
    check_round_trip(t, view(text, n)); /* NUL bytes */
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        const size_t n_unit = strlen(units[u]);
        for (size_t i = 0; i < n; i++) {
            text[i] = units[u][i % n_unit];
        }
        check_round_trip(t, view(text, n));
    }
    text_tokenizer_destroy(t);
    json_t *root = tiny_root();
    tiny_set(root, "normalizer", "null"); /* random bytes hold what NFC changes */
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
    for (size_t i = 0; i < n; i++) {
        text[i] = (char)base_random_u64(7, 0, i);
    }
    check_round_trip(t, view(text, n));
    base_heap.put(base_heap.ctx, text);
    text_tokenizer_destroy(t);
}

/* Groups need stack for each round, and nested ones may need more steps than there is time for. */
static void patterns_that_need_much_end_in_ids_or_an_error(void **state)
{
    (void)state;
    const size_t n = 200000;
    text_tokenizer *t = NULL;
    text_ids ids;
    char *text = base_heap.get(base_heap.ctx, n);
    json_t *root = tiny_root();
    assert_non_null(text);
    tiny_set(root, "pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(?:ab|a)+\"}");
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
    for (size_t i = 0; i < n; i++) {
        text[i] = "ab"[i % 2];
    }
    check_round_trip(t, view(text, n));
    text_tokenizer_destroy(t);
    t = NULL;

    root = tiny_root();
    tiny_set(root, "pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(?:a+)+c\"}");
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
    memset(text, 'a', 60);
    text_ids_init(&ids, &base_heap);
    text[60] = 'b';
    text[61] = 'c';
    CHECK_STATUS(text_encode(t, view(text, 62), plain, &ids), BASE_OUT_OF_RANGE);
    assert_int_equal(ids.n_ids, 0);
    text_ids_reset(&ids);
    base_heap.put(base_heap.ctx, text);
    text_tokenizer_destroy(t);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        text_tokenizer *t = NULL;
        const base_status st = tiny_create(tiny_root(), &mem, &t);
        const int n_calls = f.n_calls;
        f.fail_at = -1;
        if (st != BASE_OK) {
            assert_int_equal(st, BASE_NO_MEMORY);
            assert_null(t);
        } else {
            /* Only JIT compilation may fail and be done without. */
            CHECK_IDS(t, "hello", plain, TINY_HELLO);
            text_tokenizer_destroy(t);
        }
        assert_int_equal(f.n_live, 0);
        if (n_calls <= k) {
            assert_true(k > 10);
            return;
        }
    }
}

static void encode_survives_every_failed_allocation(void **state)
{
    (void)state;
    /* Long enough for the cache, with a long piece and something to normalize. */
    char text[4096];
    memset(text, 'a', sizeof text);
    memcpy(text + 100, " e\xcc\x81\xff hello ", 12);
    failing_alloc f = {.fail_at = -1};
    const base_alloc mem = {failing_get, failing_put, &f};
    text_tokenizer *t = NULL;
    CHECK_STATUS(tiny_create(tiny_root(), &mem, &t), BASE_OK);
    const int n_kept = f.n_live;
    for (int k = 0;; k++) {
        text_ids ids;
        base_bytes out;
        text_ids_init(&ids, &mem);
        base_bytes_init(&out, sizeof text, &mem);
        f.n_calls = 0;
        f.fail_at = k;
        base_status st = text_encode(t, view(text, sizeof text), plain, &ids);
        if (st != BASE_OK) {
            assert_int_equal(st, BASE_NO_MEMORY);
            assert_int_equal(ids.n_ids, 0);
        } else {
            st = text_decode(t, ids.ids, ids.n_ids, false, &out);
            if (st != BASE_OK) {
                assert_int_equal(st, BASE_NO_MEMORY);
                assert_int_equal(out.n_bytes, 0);
            }
        }
        text_ids_reset(&ids);
        base_bytes_reset(&out);
        assert_int_equal(f.n_live, n_kept);
        if (st == BASE_OK) {
            assert_true(k > 5);
            break;
        }
    }
    text_tokenizer_destroy(t);
    assert_int_equal(f.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_rank_within_a_piece),
        cmocka_unit_test(ignore_merges_takes_a_whole_piece_from_the_vocabulary),
        cmocka_unit_test(special_tokens_are_read_only_when_asked_for),
        cmocka_unit_test(the_longest_added_token_wins),
        cmocka_unit_test(the_template_goes_around_the_text),
        cmocka_unit_test(max_ids_is_a_limit_of_this_call_and_leaves_the_ids_alone),
        cmocka_unit_test(decode_refuses_ids_outside_the_vocabulary_and_leaves_the_text_alone),
        cmocka_unit_test(normalization_makes_composed_and_decomposed_text_alike),
        cmocka_unit_test(hostile_bytes_come_back_as_they_were),
        cmocka_unit_test(a_megabyte_of_anything_comes_back),
        cmocka_unit_test(patterns_that_need_much_end_in_ids_or_an_error),
        cmocka_unit_test(create_survives_every_failed_allocation),
        cmocka_unit_test(encode_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
