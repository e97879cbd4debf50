#include "coordinator/text/utf8.h"

#include "tests/support/test.h"

static void check_next(const char *text, text_utf8_kind kind, size_t n_bytes, uint32_t code)
{
    const text_utf8_char c = text_utf8_next(text, strlen(text));
    assert_int_equal(c.kind, kind);
    assert_int_equal(c.n_bytes, n_bytes);
    assert_int_equal(c.code, code);
}

static void the_borders_of_each_length_are_known(void **state)
{
    (void)state;
    check_next("\x7f", TEXT_UTF8_VALID, 1, 0x7f);
    check_next("\xc2\x80", TEXT_UTF8_VALID, 2, 0x80);
    check_next("\xdf\xbf", TEXT_UTF8_VALID, 2, 0x7ff);
    check_next("\xe0\xa0\x80", TEXT_UTF8_VALID, 3, 0x800);
    check_next("\xed\x9f\xbf", TEXT_UTF8_VALID, 3, 0xd7ff);
    check_next("\xee\x80\x80", TEXT_UTF8_VALID, 3, 0xe000);
    check_next("\xef\xbf\xbf", TEXT_UTF8_VALID, 3, 0xffff);
    check_next("\xf0\x90\x80\x80", TEXT_UTF8_VALID, 4, 0x10000);
    check_next("\xf4\x8f\xbf\xbf", TEXT_UTF8_VALID, 4, 0x10ffff);
}

static void overlong_surrogate_and_too_high_are_invalid(void **state)
{
    (void)state;
    check_next("\x80", TEXT_UTF8_INVALID, 1, 0);
    check_next("\xc1\xbf", TEXT_UTF8_INVALID, 1, 0);
    check_next("\xe0\x9f\xbf", TEXT_UTF8_INVALID, 1, 0);
    check_next("\xed\xa0\x80", TEXT_UTF8_INVALID, 1, 0);
    check_next("\xf0\x8f\xbf\xbf", TEXT_UTF8_INVALID, 1, 0);
    check_next("\xf4\x90\x80\x80", TEXT_UTF8_INVALID, 1, 0);
    check_next("\xf5\x80\x80\x80", TEXT_UTF8_INVALID, 1, 0);
    check_next("\xe2\x82x", TEXT_UTF8_INVALID, 2, 0);
    check_next("\xf0\x9f\x98x", TEXT_UTF8_INVALID, 3, 0);
}

static void a_cut_character_is_told_from_an_invalid_one(void **state)
{
    (void)state;
    check_next("\xc2", TEXT_UTF8_CUT, 1, 0);
    check_next("\xe2\x82", TEXT_UTF8_CUT, 2, 0);
    check_next("\xf0\x9f\x98", TEXT_UTF8_CUT, 3, 0);
}

static void prefixes_end_where_they_must(void **state)
{
    (void)state;
    assert_int_equal(text_utf8_valid_prefix(base_view_of("")), 0);
    assert_int_equal(text_utf8_valid_prefix(base_view_of("0123456789\xc3\xa9z\xe2\x82")), 13);
    assert_int_equal(text_utf8_valid_prefix(base_view_of("\xff")), 0);
    assert_int_equal(text_utf8_ascii_prefix(base_view_of("01234567\xc3\xa9")), 8);
    assert_int_equal(text_utf8_ascii_prefix(base_view_of("0123456789a\xc3\xa9")), 11);
    assert_int_equal(text_utf8_ascii_prefix((base_view){NULL, 0}), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_borders_of_each_length_are_known),
        cmocka_unit_test(overlong_surrogate_and_too_high_are_invalid),
        cmocka_unit_test(a_cut_character_is_told_from_an_invalid_one),
        cmocka_unit_test(prefixes_end_where_they_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
