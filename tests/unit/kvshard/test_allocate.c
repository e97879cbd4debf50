#include "kvshard/allocate.h"

#include "base/random.h"
#include "tests/support/test.h"

#include <math.h>

static void the_greedy_of_the_paper(void **state)
{
    (void)state;
    const double scores[] = {16.0, 4.0, 1.0, 0.25};
    int32_t bits[4];
    kv_allocate_bits(scores, 4, 8, 1, 8, bits);
    const int32_t want[] = {4, 2, 1, 1};
    assert_memory_equal(bits, want, sizeof want);
    kv_allocate_bits(scores, 4, 32, 1, 8, bits);
    for (int32_t i = 0; i < 4; i++) {
        assert_int_equal(bits[i], 8);
    }
}

static void equals_go_to_the_lowest_index(void **state)
{
    (void)state;
    const double scores[] = {2.0, 2.0, 2.0, 2.0, 2.0};
    const int32_t want[] = {3, 3, 2, 2, 2};
    int32_t bits[5];
    kv_allocate_bits(scores, 5, 12, 1, 8, bits);
    assert_memory_equal(bits, want, sizeof want);
}

static double cost(const double *scores, const int32_t *bits, int32_t n)
{
    double sum = 0.0;
    for (int32_t i = 0; i < n; i++) {
        sum += ldexp(scores[i], -2 * bits[i]);
    }
    return sum;
}

/* The least cost of all allocations: bits of the first items are tried one after another. */
static double least_cost(const double *scores, int32_t n, int32_t budget, int32_t high)
{
    int32_t bits[4];
    double least = INFINITY;
    for (int32_t code = 0; code < high * high * high * high; code++) {
        int32_t rest = code;
        int32_t sum = 0;
        for (int32_t i = 0; i < n; i++) {
            bits[i] = 1 + rest % high;
            rest /= high;
            sum += bits[i];
        }
        if (sum == budget) {
            least = fmin(least, cost(scores, bits, n));
        }
    }
    return least;
}

static void the_greedy_finds_the_least_cost(void **state)
{
    (void)state;
    for (uint64_t trial = 0; trial < 12; trial++) {
        double scores[4];
        int32_t bits[4];
        for (uint64_t i = 0; i < 4; i++) {
            scores[i] = exp(2.5 * base_random_normal(1, trial, i));
        }
        for (int32_t high = 4; high <= 8; high += 4) {
            for (int32_t budget = 4; budget <= 4 * high; budget += 3) {
                kv_allocate_bits(scores, 4, budget, 1, high, bits);
                const double got = cost(scores, bits, 4);
                assert_int_equal(bits[0] + bits[1] + bits[2] + bits[3], budget);
                assert_true(got <= least_cost(scores, 4, budget, high) * (1.0 + 1e-12));
            }
        }
    }
}

static void permuted_scores_give_permuted_bits(void **state)
{
    (void)state;
    enum { N = 64 };
    double scores[2][N];
    int32_t bits[2][N];
    for (int32_t i = 0; i < N; i++) {
        scores[0][i] = exp(1.5 * base_random_normal(2, 0, (uint64_t)i));
        scores[1][i * 37 % N] = scores[0][i];
    }
    kv_allocate_bits(scores[0], N, 3 * N, 1, 8, bits[0]);
    kv_allocate_bits(scores[1], N, 3 * N, 1, 8, bits[1]);
    int32_t n_wide = 0;
    for (int32_t i = 0; i < N; i++) {
        assert_int_equal(bits[1][i * 37 % N], bits[0][i]);
        n_wide += bits[0][i] != 3;
    }
    assert_true(n_wide > N / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_greedy_of_the_paper),
        cmocka_unit_test(equals_go_to_the_lowest_index),
        cmocka_unit_test(the_greedy_finds_the_least_cost),
        cmocka_unit_test(permuted_scores_give_permuted_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
