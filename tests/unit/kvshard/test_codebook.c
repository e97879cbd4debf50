#include "kvshard/codebook.h"

#include "base/file.h"
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>

#define APPENDIX "tests/golden/lloyd_max_6_digits.txt"

static double phi(double z)
{
    return exp(-0.5 * z * z) / sqrt(2.0 * 3.141592653589793);
}

static double mass(double low, double high)
{
    return low > 0.0 ? 0.5 * (erfc(low / sqrt(2.0)) - erfc(high / sqrt(2.0)))
                     : 0.5 * (erf(high / sqrt(2.0)) - erf(low / sqrt(2.0)));
}

static void tables_agree_with_an_independent_computation(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n_bytes = 0;
    CHECK_STATUS(base_file_read(APPENDIX, 65536, &base_heap, &text, &n_bytes), BASE_OK);

    int32_t n_tables = 0;
    char *at = text;
    while (*at != '\0') {
        char *line_end = strchr(at, '\n');
        assert_non_null(line_end);
        if (*at != '#') {
            const int32_t bits = (int32_t)strtol(at, &at, 10);
            double c[1 << KV_MAX_CODE_BITS];
            assert_int_equal(bits, n_tables + 1);
            kv_codebook_lloyd_max(bits, c);
            for (int32_t i = 1 << (bits - 1); i < 1 << bits; i++) {
                assert_true(at < line_end);
                assert_true(fabs(c[i] - strtod(at, &at)) <= 0.51e-6);
            }
            n_tables++;
        }
        at = line_end + 1;
    }
    assert_int_equal(n_tables, KV_MAX_CODE_BITS);
    base_heap.put(base_heap.ctx, text);
}

static void every_centroid_is_the_mean_of_its_cell(void **state)
{
    (void)state;
    for (int32_t bits = 1; bits <= KV_MAX_CODE_BITS; bits++) {
        const int32_t n = 1 << bits;
        double c[1 << KV_MAX_CODE_BITS];
        kv_codebook_lloyd_max(bits, c);
        for (int32_t i = n / 2; i < n; i++) {
            const double low = 0.5 * (c[i - 1] + c[i]);
            const double high = i + 1 < n ? 0.5 * (c[i] + c[i + 1]) : INFINITY;
            const double mean = (phi(low) - phi(high)) / mass(low, high);
            /* differences of phi over cells of mass 5e-4 and up keep 12 digits */
            assert_true(fabs(mean - c[i]) <= 1e-12);
            assert_true(c[i] == -c[n - 1 - i]);
            assert_true(c[i] > c[i - 1]);
        }
    }
}

static void distortion_is_the_published_one(void **state)
{
    (void)state;
    static const double want[] = {0.36338023, 0.11748185, 0.03454776, 0.00950101,
                                  0.00250467, 0.00064424, 0.00016348, 0.00004119};
    for (int32_t bits = 1; bits <= KV_MAX_CODE_BITS; bits++) {
        double c[1 << KV_MAX_CODE_BITS];
        kv_codebook_lloyd_max(bits, c);
        assert_true(fabs(kv_codebook_distortion(bits, c) - want[bits - 1]) <= 0.51e-8);
    }
}

/* A second way to the same number: the sum over a fine grid. */
static void distortion_is_the_integral_of_the_squared_error(void **state)
{
    (void)state;
    static const double c[] = {-1.5, -0.25, 0.5, 2.0}; /* not symmetric, not optimal */
    const double step = 1e-3;
    double sum = 0.0;
    for (int32_t i = -9000; i < 9000; i++) {
        const double z = (i + 0.5) * step;
        double best = INFINITY;
        for (int32_t k = 0; k < 4; k++) {
            best = fmin(best, (z - c[k]) * (z - c[k]));
        }
        sum += best * phi(z) * step;
    }
    assert_true(fabs(kv_codebook_distortion(2, c) - sum) <= 1e-6); /* the grid's error: step^2 */
}

static void page_codebooks_are_integer_levels_at_no_cost(void **state)
{
    (void)state;
    static const double excess[] = {0.0, 5e-6, 3.5e-5, 4.5e-4};
    static const double levels[][8] = {
        {1},
        {38, 127},
        {13, 40, 71, 114},
        {5.5, 16.5, 27.5, 39.5, 52.5, 67.5, 86.5, 114.5},
    };
    for (int32_t bits = 1; bits <= 4; bits++) {
        const int32_t half = 1 << (bits - 1);
        double exact[16];
        double page[16];
        kv_codebook_lloyd_max(bits, exact);
        kv_codebook_page(bits, page);
        const double scale = page[2 * half - 1] / levels[bits - 1][half - 1];
        for (int32_t i = 0; i < half; i++) {
            assert_true(fabs(page[half + i] - scale * levels[bits - 1][i]) <= 1e-15);
            assert_true(page[half + i] == -page[half - 1 - i]);
        }
        const double d = kv_codebook_distortion(bits, page);
        const double best = kv_codebook_distortion(bits, exact);
        assert_true(d >= best * (1.0 - 1e-12));
        assert_true(d <= best * (1.0 + excess[bits - 1]));
    }
}

static void another_scale_of_the_levels_is_worse(void **state)
{
    (void)state;
    for (int32_t bits = 2; bits <= 4; bits++) {
        double page[16];
        kv_codebook_page(bits, page);
        const double best = kv_codebook_distortion(bits, page);
        for (int32_t sign = -1; sign <= 1; sign += 2) {
            double other[16];
            for (int32_t i = 0; i < 1 << bits; i++) {
                other[i] = page[i] * (1.0 + sign * 1e-4);
            }
            assert_true(kv_codebook_distortion(bits, other) > best);
        }
    }
}

static void above_four_bits_pages_use_the_exact_tables(void **state)
{
    (void)state;
    for (int32_t bits = 5; bits <= KV_MAX_CODE_BITS; bits++) {
        double exact[256];
        double page[256];
        kv_codebook_lloyd_max(bits, exact);
        kv_codebook_page(bits, page);
        assert_memory_equal(exact, page, sizeof(double) << bits);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_agree_with_an_independent_computation),
        cmocka_unit_test(every_centroid_is_the_mean_of_its_cell),
        cmocka_unit_test(distortion_is_the_published_one),
        cmocka_unit_test(distortion_is_the_integral_of_the_squared_error),
        cmocka_unit_test(page_codebooks_are_integer_levels_at_no_cost),
        cmocka_unit_test(another_scale_of_the_levels_is_worse),
        cmocka_unit_test(above_four_bits_pages_use_the_exact_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
