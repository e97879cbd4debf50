#include "tests/support/test.h"
#include "worker/eval/logits.h"

#include <math.h>

/* cmocka compares floats only */
#define CHECK_NEAR(got, want, tolerance) assert_true(fabs((got) - (want)) <= (tolerance))

#define NEAR 1e-6

static void the_nll_is_that_of_the_softmax(void **state)
{
    (void)state;
    /* exp: 1, 2, 5 of 8 */
    const float logits[3] = {0.0f, logf(2.0f), logf(5.0f)};
    CHECK_NEAR(eval_logits_nll(logits, 3, 0), log(8.0), NEAR);
    CHECK_NEAR(eval_logits_nll(logits, 3, 1), log(4.0), NEAR);
    CHECK_NEAR(eval_logits_nll(logits, 3, 2), log(8.0 / 5.0), NEAR);
    const float large[2] = {1000.0f, 999.0f};
    CHECK_NEAR(eval_logits_nll(large, 2, 1), 1.0 + log(1.0 + exp(-1.0)), NEAR);
}

static void the_best_of_equals_is_the_first(void **state)
{
    (void)state;
    const float logits[4] = {1.0f, 3.0f, 3.0f, 2.0f};
    assert_int_equal(eval_logits_best(logits, 4), 1);
}

static void the_gap_of_two_rows_is_as_by_hand(void **state)
{
    (void)state;
    /* p = 1/4, 3/4 and q = 1/2, 1/2 */
    const float reference[2] = {0.0f, logf(3.0f)};
    const float logits[2] = {1.0f, 1.0f};
    eval_gap gap = {.n_rows = 0};
    eval_gap_add(&gap, reference, logits, 2);
    assert_int_equal(gap.n_rows, 1);
    CHECK_NEAR(gap.kl, 0.25 * log(0.5) + 0.75 * log(1.5), NEAR);
    CHECK_NEAR(gap.abs_error, (1.0 + fabs(1.0 - log(3.0))) / 2.0, NEAR);
    CHECK_NEAR(gap.top1, 0.0, NEAR);
    CHECK_NEAR(gap.top10, 1.0, NEAR); /* both tokens are in both lists */
    eval_gap_add(&gap, reference, reference, 2);
    assert_int_equal(gap.n_rows, 2);
    CHECK_NEAR(gap.top1, 1.0, NEAR);
    CHECK_NEAR(gap.kl, 0.25 * log(0.5) + 0.75 * log(1.5), NEAR);
}

static void the_overlap_counts_the_ten_best(void **state)
{
    (void)state;
    enum { V = 30 };
    float reference[V];
    float logits[V];
    for (int32_t i = 0; i < V; i++) { /* best: 0..9, and 3..12 */
        reference[i] = (float)-i;
        logits[i] = i < 3 ? -100.0f : (float)-i;
    }
    eval_gap gap = {.n_rows = 0};
    eval_gap_add(&gap, reference, logits, V);
    CHECK_NEAR(gap.top10, 0.7, NEAR);
    CHECK_NEAR(gap.top1, 0.0, NEAR);
    for (int32_t i = 0; i < V; i++) { /* the order they stand in does not matter */
        logits[i] = (float)((i * 7) % V);
        reference[i] = logits[i] + (logits[i] > 24.0f ? 100.0f : 0.0f);
    }
    gap = (eval_gap){.n_rows = 0};
    eval_gap_add(&gap, reference, logits, V);
    CHECK_NEAR(gap.top10, 1.0, NEAR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nll_is_that_of_the_softmax),
        cmocka_unit_test(the_best_of_equals_is_the_first),
        cmocka_unit_test(the_gap_of_two_rows_is_as_by_hand),
        cmocka_unit_test(the_overlap_counts_the_ten_best),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
