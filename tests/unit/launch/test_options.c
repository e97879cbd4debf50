#include "launch/options.h"
#include "tests/support/test.h"

#define MAX_N 3

static void lengths_are_in_tokens_k_and_m(void **state)
{
    int64_t lengths[MAX_N];
    int32_t n = 0;
    (void)state;
    CHECK_STATUS(options_lengths("--n", "128,8K,2m", 128, 1 << 21, lengths, MAX_N, &n), BASE_OK);
    assert_int_equal(n, 3);
    assert_int_equal(lengths[0], 128);
    assert_int_equal(lengths[1], 8192);
    assert_int_equal(lengths[2], 2097152);
}

static void bad_lists_are_named(void **state)
{
    static const char *const bad[] = {"",
                                      ",",
                                      "1K,",
                                      "127",
                                      "3M",
                                      "1K,x",
                                      "1K 2",
                                      "1K,2K,3K,4K",
                                      "-1K",
                                      "1KK",
                                      "9223372036854775807M",
                                      "99999999999999999999"};
    int64_t lengths[MAX_N];
    int32_t n = 0;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_STATUS(options_lengths("--n", bad[i], 128, 1 << 21, lengths, MAX_N, &n),
                     BASE_BAD_INPUT);
        assert_non_null(strstr(base_last_error(), "--n '"));
        assert_non_null(strstr(base_last_error(), bad[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_are_in_tokens_k_and_m),
        cmocka_unit_test(bad_lists_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
