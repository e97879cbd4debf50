#include "coordinator/text/nfc.h"

#include "tests/support/test.h"

#include <stdlib.h>
#include <utf8proc.h>

#define MAX_BYTES ((size_t)16 << 20)

static void check_nfc(const char *text, const char *want)
{
    base_bytes buffer;
    base_view got;
    base_bytes_init(&buffer, MAX_BYTES, &base_heap);
    CHECK_STATUS(text_nfc_apply(base_view_of(text), &buffer, &got), BASE_OK);
    assert_true(base_view_equal(got, base_view_of(want)));
    base_bytes_reset(&buffer);
}

static void known_sequences_are_composed(void **state)
{
    (void)state;
    check_nfc("plain", "plain");
    check_nfc("e\xcc\x81", "\xc3\xa9");
    check_nfc("ab e\xcc\x81 cd o\xcc\x88", "ab \xc3\xa9 cd \xc3\xb6");
    check_nfc("\xe2\x84\xab", "\xc3\x85");                             /* ANGSTROM SIGN */
    check_nfc("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"); /* Hangul from its letters */
    check_nfc("\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81");             /* and from half of it */
    check_nfc("a\xcc\x81\xcc\x96", "\xc3\xa1\xcc\x96");                /* marks in their order */
    check_nfc("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");             /* an excluded composition */
    check_nfc("\xcc\x81", "\xcc\x81");
    check_nfc("\xcd\x84", "\xcc\x88\xcc\x81"); /* one that grows */
}

static void text_that_does_not_change_is_not_copied(void **state)
{
    (void)state;
    const base_view text = base_view_of("caf\xc3\xa9 \xe7\x9a\x84 \xf0\x9f\x98\x80");
    base_bytes buffer;
    base_view got;
    base_bytes_init(&buffer, 0, &base_heap);
    CHECK_STATUS(text_nfc_apply(text, &buffer, &got), BASE_OK);
    assert_ptr_equal(got.data, text.data);
    base_bytes_reset(&buffer);
}

/* Each code point between others, against the library's own whole-string function. */
static void every_code_point_agrees_with_the_library(void **state)
{
    (void)state;
    for (utf8proc_int32_t code = 1; code < 0x110000; code++) {
        utf8proc_uint8_t text[32] = {'e'};
        size_t n = 1;
        if (code >= 0xd800 && code < 0xe000) {
            continue;
        }
        n += (size_t)utf8proc_encode_char(code, text + n);
        n += (size_t)utf8proc_encode_char(0x301, text + n);
        n += (size_t)utf8proc_encode_char(code, text + n);
        n += (size_t)utf8proc_encode_char(0x316, text + n);
        utf8proc_uint8_t *want = utf8proc_NFC(text);
        check_nfc((const char *)text, (const char *)want);
        free(want);
    }
}

/* A quadratic sort of marks would not end within the time limit. */
static void a_long_run_of_marks_is_sorted_in_time(void **state)
{
    (void)state;
    const size_t n = (size_t)1 << 20;
    base_bytes text;
    base_bytes buffer;
    base_view got;
    base_bytes_init(&text, MAX_BYTES, &base_heap);
    base_bytes_init(&buffer, MAX_BYTES, &base_heap);
    for (size_t i = 0; i < n; i++) {
        CHECK_STATUS(base_bytes_add(&text, "\xcc\x81\xcc\x96", 4), BASE_OK);
    }
    CHECK_STATUS(text_nfc_apply(base_bytes_view(&text), &buffer, &got), BASE_OK);
    assert_int_equal(got.n_bytes, 4 * n);
    for (size_t i = 0; i < n; i++) {
        assert_memory_equal(got.data + 2 * i, "\xcc\x96", 2);
        assert_memory_equal(got.data + 2 * n + 2 * i, "\xcc\x81", 2);
    }
    base_bytes_reset(&text);
    base_bytes_reset(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_sequences_are_composed),
        cmocka_unit_test(text_that_does_not_change_is_not_copied),
        cmocka_unit_test(every_code_point_agrees_with_the_library),
        cmocka_unit_test(a_long_run_of_marks_is_sorted_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
