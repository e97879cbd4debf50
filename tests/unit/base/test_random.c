#include "base/random.h"
#include "tests/support/test.h"

#include <math.h>

/* Known answers of Philox4x32-10 (Random123's kat_vectors): counter and key all zero, all ones. */
static void gives_the_published_words(void **state)
{
    (void)state;
    assert_true(base_random_u64(0, 0, 0) == 0xe169c58d6627e8d5u);
    assert_true(base_random_u64(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x41c83b0e408f276du);
}

static void moments_are_those_of_the_distributions(void **state)
{
    enum { N = 200000 };
    double sum = 0, sum_normal = 0, square = 0, fourth = 0;
    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        const double u = base_random_unit(7, 1, i);
        const double z = base_random_normal(7, 2, i);
        assert_true(u >= 0.0 && u < 1.0 && isfinite(z));
        sum += u;
        sum_normal += z;
        square += z * z;
        fourth += z * z * z * z;
    }
    /* Five standard errors of each mean. */
    assert_true(fabs(sum / N - 0.5) < 5 * 0.2887 / sqrt(N));
    assert_true(fabs(sum_normal / N) < 5 / sqrt(N));
    assert_true(fabs(square / N - 1) < 5 * 1.4142 / sqrt(N));
    assert_true(fabs(fourth / N - 3) < 5 * 9.798 / sqrt(N));
}

static void seed_stream_and_index_all_matter(void **state)
{
    (void)state;
    const uint64_t a = base_random_u64(1, 2, 3);
    assert_true(a == base_random_u64(1, 2, 3));
    assert_true(a != base_random_u64(2, 2, 3) && a != base_random_u64(1, 3, 3) &&
                a != base_random_u64(1, 2, 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_published_words),
        cmocka_unit_test(moments_are_those_of_the_distributions),
        cmocka_unit_test(seed_stream_and_index_all_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
