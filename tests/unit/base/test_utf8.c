#include "base/utf8.h"
#include "tests/support/test.h"

/* RFC 3629, written the other way round: encode every code point, and nothing else is valid. */
static size_t encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static void every_code_point_but_surrogates_is_valid(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x1fffff; c++) {
        char bytes[4];
        const size_t n = encode(c, bytes);
        const bool want = c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
        if (base_utf8_valid((base_view){bytes, n}, NULL) != want) {
            fail_msg("U+%04X", (unsigned)c);
        }
    }
}

/* All runs of three bytes, and of four from a few classes, hold as many valid ones as there are. */
static void nothing_else_is_valid(void **state)
{
    (void)state;
    unsigned n_valid = 0;
    for (uint32_t c = 0; c < 1u << 24; c += 1) {
        const char bytes[3] = {(char)(c >> 16), (char)(c >> 8), (char)c};
        if ((c >> 16) >= 0x80) {
            n_valid += base_utf8_valid((base_view){bytes, 3}, NULL);
        }
    }
    /* three bytes as one character, or two and one ASCII; surrogates taken out */
    assert_int_equal(n_valid, (0x10000 - 0x800 - 0x800) + 1920 * 128);
}

static void the_first_bad_byte_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bad_at;
    } table[] = {{"\x80", 0},
                 {"abcdefghijk\xff", 11},
                 {"abcdefg\xc3", 7},
                 {"\xc3\xa9\xe2\x82", 2},
                 {"\xf0\x9f\x98\x80\xf0\x9f\x98", 4},
                 {"\xc0\x80", 0},
                 {"x\xed\xa0\x80", 1},
                 {"\xe2\x82\xac\xf5\x80\x80\x80", 3},
                 {"01234567\xc3\xa9\xc3", 10}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        size_t bad_at = 99;
        assert_false(base_utf8_valid(base_view_of(table[i].text), &bad_at));
        assert_int_equal(bad_at, table[i].bad_at);
    }
}

static void good_text_leaves_the_position_alone(void **state)
{
    (void)state;
    size_t bad_at = 99;
    assert_true(base_utf8_valid((base_view){NULL, 0}, &bad_at));
    assert_true(base_utf8_valid((base_view){"a\0b", 3}, &bad_at));
    assert_true(base_utf8_valid(base_view_of("plain text, then \xe2\x82\xac, then more"), &bad_at));
    assert_int_equal(bad_at, 99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_but_surrogates_is_valid),
        cmocka_unit_test(nothing_else_is_valid),
        cmocka_unit_test(the_first_bad_byte_is_named),
        cmocka_unit_test(good_text_leaves_the_position_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
