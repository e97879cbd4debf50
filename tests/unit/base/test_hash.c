#include "base/hash.h"
#include "tests/support/test.h"

static void gives_the_published_digest(void **state)
{
    base_hasher *hasher = NULL;
    char text[BASE_HASH_TEXT_BYTES];
    (void)state;
    CHECK_STATUS(base_hasher_create(&hasher), BASE_OK);
    base_hasher_add(hasher, "a", 1);
    base_hasher_add(hasher, "bc", 2);
    base_hash_text(base_hasher_end(hasher), text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223"); /* FIPS 180-4, "abc" */
}

static base_hash of_two_texts(const char *a, const char *b)
{
    base_hasher *hasher = NULL;
    CHECK_STATUS(base_hasher_create(&hasher), BASE_OK);
    base_hasher_add_text(hasher, a);
    base_hasher_add_text(hasher, b);
    return base_hasher_end(hasher);
}

static void borders_between_texts_count(void **state)
{
    (void)state;
    assert_true(base_hash_equal(of_two_texts("ab", "c"), of_two_texts("ab", "c")));
    assert_false(base_hash_equal(of_two_texts("ab", "c"), of_two_texts("a", "bc")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_published_digest),
        cmocka_unit_test(borders_between_texts_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
