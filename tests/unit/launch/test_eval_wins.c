/* Layers won against uniform tq, on errors whose answers are known. */
#include "launch/eval_wins.h"

#include "tests/support/test.h"

#include <math.h>

enum { LAYERS = 2, POLICIES = 5 };

static model m = {.config = {.n_layers = LAYERS}};
static double bits[POLICIES][LAYERS] = {
    {16.0, 16.0}, {3.0, 3.0}, {2.0, 2.0}, {2.5, 3.0}, {3.5, 2.0}};
static eval_attn_mae layers[POLICIES][LAYERS] = {{{0.0, 0.0}, {0.0, 0.0}},
                                                 {{4.0, 1.0}, {4.0, 1.0}},
                                                 {{16.0, 9.0}, {16.0, 9.0}},
                                                 {{7.0, 2.0}, {5.0, 8.0}},
                                                 {{1.0, 1.0}, {1.0, 1.0}}};
static eval_session s;

/* bf16, tq of 3 and of 2 bits, and two others of 2 and of 4. */
static int set_up(void **state)
{
    static const char *const policies[POLICIES] = {"bf16", "tq:k=3,v=3", "tq:k=2,v=2",
                                                   "block-gtq:k=2,v=2", "block-gtq:k=4,v=4"};
    static eval_result results[POLICIES];
    (void)state;
    s = (eval_session){.model = &m, .results = results, .options = {.n_policies = POLICIES}};
    for (int32_t i = 0; i < POLICIES; i++) {
        CHECK_STATUS(kv_policy_parse(policies[i], &s.options.policies[i]), BASE_OK);
        results[i] = (eval_result){.layer_k_bits = bits[i], .layers = layers[i]};
    }
    return 0;
}

static void nominal_bits_compare_with_tq_of_the_same_k(void **state)
{
    (void)state;
    eval_wins wins;
    assert_true(eval_wins_find(&s, 3, false, false, &wins));
    assert_int_equal(wins.n_layers, 2); /* 7 and 5 against 16 */
    assert_true(fabs(wins.cut - (1.0 - 12.0 / 32.0)) < 1e-12);
    assert_true(eval_wins_find(&s, 3, true, false, &wins));
    assert_int_equal(wins.n_layers, 2); /* 2 and 8 against 9 */
    assert_true(fabs(wins.cut - (1.0 - 10.0 / 18.0)) < 1e-12);
}

/* Half way between 16 and 4 in logs is 8; at a width of the list it is that width's. */
static void true_bits_compare_with_tq_between_its_widths(void **state)
{
    (void)state;
    eval_wins wins;
    assert_true(eval_wins_find(&s, 3, false, true, &wins));
    assert_int_equal(wins.n_layers, 1); /* 7 against 8, 5 against 4 */
    assert_true(fabs(wins.cut) < 1e-12);
    assert_true(eval_wins_find(&s, 3, true, true, &wins));
    assert_int_equal(wins.n_layers, 1); /* 2 against 3, 8 against 1 */
    assert_true(fabs(wins.cut - (1.0 - 10.0 / 4.0)) < 1e-12);
}

static void without_a_tq_to_compare_with_there_is_no_answer(void **state)
{
    (void)state;
    eval_wins wins = {-1, -1.0};
    for (int32_t i = 0; i < POLICIES; i++) {
        const bool other = i == 3;
        for (int32_t pairs = 0; pairs < 2; pairs++) {
            assert_int_equal(eval_wins_find(&s, i, pairs == 1, false, &wins), other);
            assert_int_equal(eval_wins_find(&s, i, pairs == 1, true, &wins), other);
        }
    }
    wins = (eval_wins){-1, -1.0};
    assert_false(eval_wins_find(&s, 4, false, true, &wins)); /* 3.5 bits: above the list */
    assert_int_equal(wins.n_layers, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nominal_bits_compare_with_tq_of_the_same_k),
        cmocka_unit_test(true_bits_compare_with_tq_between_its_widths),
        cmocka_unit_test(without_a_tq_to_compare_with_there_is_no_answer),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
