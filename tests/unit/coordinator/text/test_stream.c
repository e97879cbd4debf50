#include "coordinator/text/stream.h"
#include "coordinator/text/utf8.h"

#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "tests/support/tiny_tokenizer.h"

#define MAX_OUT ((size_t)1 << 20)

/* Streams the bytes of text, one token a byte, and checks what came out and which stop it was. */
static void check_stops(const char *text, const char *const *stops, size_t n_stops,
                        bool include_stop, const char *want, int want_stop)
{
    text_tokenizer *t = tiny_tokenizer();
    text_stream *s = NULL;
    base_view views[TEXT_MAX_STOPS];
    base_bytes out;
    int stop = -1;
    for (size_t i = 0; i < n_stops; i++) {
        views[i] = base_view_of(stops[i]);
    }
    base_bytes_init(&out, MAX_OUT, &base_heap);
    CHECK_STATUS(base_bytes_add(&out, "", 0), BASE_OK);
    CHECK_STATUS(text_stream_create(t, views, n_stops, include_stop, &base_heap, &s), BASE_OK);
    for (size_t i = 0; i < strlen(text); i++) {
        const base_view one = {text + i, 1};
        CHECK_STATUS(text_stream_add(s, text_tokenizer_find(t, one), &out, &stop), BASE_OK);
    }
    CHECK_STATUS(text_stream_finish(s, &out), BASE_OK);
    assert_string_equal(out.data, want);
    assert_int_equal(stop, want_stop);
    base_bytes_reset(&out);
    text_stream_destroy(s);
    text_tokenizer_destroy(t);
}

static void a_stop_ends_the_stream_before_itself(void **state)
{
    (void)state;
    static const char *const stops[] = {"END", "\n\n"};
    check_stops("some ENx END more", stops, 2, false, "some ENx ", 0);
    check_stops("some ENx END more", stops, 2, true, "some ENx END", 0);
    check_stops("a\nb\n\nc", stops, 2, false, "a\nb", 1);
    check_stops("no such EN", stops, 2, false, "no such EN", -1);
    check_stops("END", stops, 2, false, "", 0);
}

static void overlapping_beginnings_are_not_lost(void **state)
{
    (void)state;
    static const char *const aab[] = {"aab"};
    static const char *const two[] = {"abcd", "bc"};
    static const char *const suffix[] = {"b", "ab"};
    static const char *const multi[] = {"\xc3\xa9\xc3\xa8"};
    check_stops("aaaab!", aab, 1, false, "aa", 0);
    check_stops("xabcd", two, 2, false, "xa", 1); /* the first that is complete */
    check_stops("xab", suffix, 2, false, "x", 1); /* of two at once, the longer */
    check_stops("\xc3\xa9\xc3\xa9\xc3\xa8!", multi, 1, false, "\xc3\xa9", 0);
}

static void a_stop_may_begin_and_end_inside_tokens(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    text_stream *s = NULL;
    base_bytes out;
    int stop = 7;
    const base_view stops[] = {{"llohe", 5}};
    base_bytes_init(&out, MAX_OUT, &base_heap);
    CHECK_STATUS(text_stream_create(t, stops, 1, false, &base_heap, &s), BASE_OK);
    CHECK_STATUS(text_stream_add(s, TINY_HELLO, &out, &stop), BASE_OK);
    assert_string_equal(out.data, "he");
    assert_int_equal(stop, -1);
    CHECK_STATUS(text_stream_add(s, TINY_BOS, &out, &stop), BASE_OK); /* no text */
    CHECK_STATUS(text_stream_add(s, TINY_HELLO, &out, &stop), BASE_OK);
    assert_string_equal(out.data, "he");
    assert_int_equal(stop, 0);
    CHECK_STATUS(text_stream_add(s, TINY_HELLO, &out, &stop), BASE_OK);
    CHECK_STATUS(text_stream_finish(s, &out), BASE_OK);
    assert_string_equal(out.data, "he");
    assert_int_equal(stop, 0);
    base_bytes_reset(&out);
    text_stream_destroy(s);
    text_tokenizer_destroy(t);
}

static void each_maximal_invalid_run_is_one_replacement(void **state)
{
    (void)state;
#define R "\xef\xbf\xbd"
    /* The example of table 3-8 in the Unicode standard, and others around it. */
    check_stops("a\xf1\x80\x80\xe1\x80\xc2"
                "b\x80"
                "c\x80\xbf"
                "d",
                NULL, 0, false, "a" R R R "b" R "c" R R "d", -1);
    check_stops("\xed\xa0\x80", NULL, 0, false, R R R, -1);
    check_stops("\xc0\xaf\xff", NULL, 0, false, R R R, -1);
    check_stops("x\xf0\x9f\x98", NULL, 0, false, "x" R, -1); /* cut by the end */
    check_stops("\xf0\x9f\x98\x80", NULL, 0, false, "\xf0\x9f\x98\x80", -1);
#undef R
}

/* What the stream must give in the end, by the plain way. */
static void replace_invalid(base_view bytes, base_bytes *out)
{
    while (bytes.n_bytes > 0) {
        const text_utf8_char c = text_utf8_next(bytes.data, bytes.n_bytes);
        CHECK_STATUS(c.kind == TEXT_UTF8_VALID ? base_bytes_add(out, bytes.data, c.n_bytes)
                                               : base_bytes_add(out, "\xef\xbf\xbd", 3),
                     BASE_OK);
        bytes.data += c.n_bytes;
        bytes.n_bytes -= c.n_bytes;
    }
}

static void random_tokens_give_the_decoded_text_in_whole_characters(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    const base_view stops[] = {{"aaaaaaaaaaaaaaaaaaaaaaaaX", 25}, {"hellohellohelloX", 16}};
    for (uint64_t round = 0; round < 200; round++) {
        text_stream *s = NULL;
        base_bytes out;
        base_bytes bytes;
        base_bytes want;
        int stop = -1;
        base_bytes_init(&out, MAX_OUT, &base_heap);
        base_bytes_init(&bytes, MAX_OUT, &base_heap);
        base_bytes_init(&want, MAX_OUT, &base_heap);
        CHECK_STATUS(text_stream_create(t, stops, 2, false, &base_heap, &s), BASE_OK);
        for (uint64_t i = 0; i < 300; i++) {
            const uint64_t r = base_random_u64(3, round, i);
            /* Mostly the upper half of the bytes, where characters are cut; else any token. */
            const int32_t id = (int32_t)(r % 3 == 0 ? (r >> 8) % TINY_N_IDS : 94 + (r >> 8) % 94);
            const size_t n_before = out.n_bytes;
            CHECK_STATUS(text_decode(t, &id, 1, true, &bytes), BASE_OK);
            CHECK_STATUS(text_stream_add(s, id, &out, &stop), BASE_OK);
            const base_view added = {out.data + n_before, out.n_bytes - n_before};
            assert_int_equal(text_utf8_valid_prefix(added), added.n_bytes);
        }
        CHECK_STATUS(text_stream_finish(s, &out), BASE_OK);
        replace_invalid(base_bytes_view(&bytes), &want);
        assert_int_equal(stop, -1);
        assert_true(base_view_equal(base_bytes_view(&out), base_bytes_view(&want)));
        base_bytes_reset(&out);
        base_bytes_reset(&bytes);
        base_bytes_reset(&want);
        text_stream_destroy(s);
    }
    text_tokenizer_destroy(t);
}

static void stops_outside_the_limits_are_refused_by_index(void **state)
{
    (void)state;
    char longest[TEXT_MAX_STOP_BYTES + 1];
    memset(longest, 'x', sizeof longest);
    text_tokenizer *t = tiny_tokenizer();
    text_stream *s = NULL;
    base_view stops[TEXT_MAX_STOPS + 1];
    for (size_t i = 0; i <= TEXT_MAX_STOPS; i++) {
        stops[i] = (base_view){longest, TEXT_MAX_STOP_BYTES};
    }
    CHECK_STATUS(text_stream_create(t, stops, TEXT_MAX_STOPS + 1, false, &base_heap, &s),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("17");
    CHECK_STATUS(text_stream_create(t, stops, TEXT_MAX_STOPS, false, &base_heap, &s), BASE_OK);
    text_stream_destroy(s);
    s = NULL;
    stops[2].n_bytes = TEXT_MAX_STOP_BYTES + 1;
    CHECK_STATUS(text_stream_create(t, stops, 3, false, &base_heap, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("stop[2]");
    stops[1].n_bytes = 0;
    CHECK_STATUS(text_stream_create(t, stops, 3, false, &base_heap, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("stop[1]");
    stops[0] = base_view_of("\xc3");
    CHECK_STATUS(text_stream_create(t, stops, 3, false, &base_heap, &s), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("stop[0]");
    assert_null(s);
    text_tokenizer_destroy(t);
}

static void an_unknown_id_is_refused(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    text_stream *s = NULL;
    base_bytes out;
    int stop = 7;
    base_bytes_init(&out, MAX_OUT, &base_heap);
    CHECK_STATUS(text_stream_create(t, NULL, 0, false, &base_heap, &s), BASE_OK);
    CHECK_STATUS(text_stream_add(s, TINY_N_IDS, &out, &stop), BASE_BAD_INPUT);
    assert_int_equal(stop, 7);
    assert_int_equal(out.n_bytes, 0);
    base_bytes_reset(&out);
    text_stream_destroy(s);
    text_tokenizer_destroy(t);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    text_tokenizer *t = tiny_tokenizer();
    const base_view stops[] = {{"END", 3}, {"ll", 2}};
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        text_stream *s = NULL;
        base_bytes out;
        int stop = -1;
        base_bytes_init(&out, MAX_OUT, &mem);
        base_status st = text_stream_create(t, stops, 2, false, &mem, &s);
        if (st == BASE_OK) {
            st = text_stream_add(s, TINY_HE, &out, &stop);
        } else {
            assert_null(s);
        }
        text_stream_destroy(s);
        base_bytes_reset(&out);
        assert_int_equal(f.n_live, 0);
        if (st == BASE_OK) {
            assert_true(k > 5);
            break;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
    }
    text_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_ends_the_stream_before_itself),
        cmocka_unit_test(overlapping_beginnings_are_not_lost),
        cmocka_unit_test(a_stop_may_begin_and_end_inside_tokens),
        cmocka_unit_test(each_maximal_invalid_run_is_one_replacement),
        cmocka_unit_test(random_tokens_give_the_decoded_text_in_whole_characters),
        cmocka_unit_test(stops_outside_the_limits_are_refused_by_index),
        cmocka_unit_test(an_unknown_id_is_refused),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
