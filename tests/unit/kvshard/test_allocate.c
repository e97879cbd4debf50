#include "kvshard/allocate.h"

#include "base/random.h"
#include "kvshard/codebook.h"
#include "tests/support/test.h"

#include <math.h>
#include <stdbool.h>

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

static void group_errors_are_those_of_the_codebooks(void **state)
{
    (void)state;
    for (int32_t bits = 1; bits <= 8; bits++) {
        double centroids[256];
        kv_codebook_page(bits, centroids);
        const double d = kv_codebook_distortion(bits, centroids);
        assert_true(fabs(kv_group_error(bits) / (2.0 - 2.0 * sqrt(1.0 - d)) - 1.0) < 1e-4);
    }
}

enum { N_ITEMS = 8 };

static void draw_items(uint64_t trial, double sigma, double *weights)
{
    for (int32_t i = 0; i < N_ITEMS; i++) {
        const double w = exp(sigma * base_random_normal(3, trial, (uint64_t)i));
        int32_t at = i;
        for (; at > 0 && weights[at - 1] > w; at--) {
            weights[at] = weights[at - 1];
        }
        weights[at] = w;
    }
}

/* Every set of items as one group, the others as the second, any widths. */
static double least_error(const double *weights, const kv_group_rule *rule, bool only_cuts)
{
    double least = INFINITY;
    for (int32_t set = 0; set < 1 << N_ITEMS; set++) {
        if (only_cuts && (set & (set + 1)) != 0) {
            continue; /* not the lightest items */
        }
        const int32_t n = __builtin_popcount((unsigned)set);
        double sums[2] = {0.0, 0.0};
        for (int32_t i = 0; i < N_ITEMS; i++) {
            sums[(set >> i & 1) == 0] += weights[i];
        }
        for (int32_t code = 0; code < rule->most_bits * rule->most_bits; code++) {
            const int32_t a = 1 + code % rule->most_bits;
            const int32_t b = 1 + code / rule->most_bits;
            const int32_t n_norms = (n > 0) + (n < N_ITEMS);
            const int32_t bits =
                rule->item_dims * (n * a + (N_ITEMS - n) * b) + n_norms * rule->norm_bits;
            if (bits <= rule->budget) {
                const double first = n == 0 ? 0.0 : kv_group_error(a) * sums[0] * sums[0] / n;
                const double rest =
                    n == N_ITEMS ? 0.0 : kv_group_error(b) * sums[1] * sums[1] / (N_ITEMS - n);
                least = fmin(least, first + rest);
            }
        }
    }
    return least;
}

/* Of all cuts the best; of all sets too, unless the widths that are allowed are too few for the weights. */
static void groups_have_the_least_error_within_the_budget(void **state)
{
    (void)state;
    int32_t n_split = 0;
    for (uint64_t trial = 0; trial < 48; trial++) {
        double weights[N_ITEMS];
        draw_items(trial, 0.25 * (double)(trial % 8), weights);
        for (int32_t mean = 1; mean <= 5; mean++) {
            for (int32_t most = 4; most <= 8; most += 4) {
                const kv_group_rule rule = {16, 16, N_ITEMS * 16 * mean + 16, most};
                const kv_groups g = kv_allocate_groups(weights, N_ITEMS, &rule);
                int32_t bits = 0;
                int32_t n = 0;
                for (int32_t i = 0; i < g.n_groups; i++) {
                    assert_in_range(g.bits[i], 1, most);
                    bits += 16 * g.n_items[i] * g.bits[i] + 16;
                    n += g.n_items[i];
                }
                assert_int_equal(n, N_ITEMS);
                assert_true(bits <= rule.budget);
                assert_true(g.error <= least_error(weights, &rule, true) * (1.0 + 1e-12));
                if (most == 8 && trial % 8 <= 4) {
                    assert_true(g.error <= least_error(weights, &rule, false) * (1.0 + 1e-12));
                }
                n_split += g.n_groups - 1;
            }
        }
    }
    assert_in_range(n_split, 48, 48 * 10 - 48);
}

static void equal_weights_are_one_group(void **state)
{
    (void)state;
    const double weights[N_ITEMS] = {1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0};
    for (int32_t mean = 1; mean <= 8; mean++) {
        const kv_group_rule rule = {16, 16, N_ITEMS * 16 * mean + 16, 8};
        const kv_groups g = kv_allocate_groups(weights, N_ITEMS, &rule);
        assert_int_equal(g.n_groups, 1);
        assert_int_equal(g.n_items[0], N_ITEMS);
        assert_int_equal(g.bits[0], mean);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_greedy_of_the_paper),
        cmocka_unit_test(equals_go_to_the_lowest_index),
        cmocka_unit_test(the_greedy_finds_the_least_cost),
        cmocka_unit_test(permuted_scores_give_permuted_bits),
        cmocka_unit_test(group_errors_are_those_of_the_codebooks),
        cmocka_unit_test(groups_have_the_least_error_within_the_budget),
        cmocka_unit_test(equal_weights_are_one_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
