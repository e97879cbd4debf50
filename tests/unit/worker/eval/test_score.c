#include "tests/support/test.h"
#include "worker/eval/score.h"

#include <math.h>

/* cmocka compares floats only */
#define CHECK_NEAR(got, want, tolerance) assert_true(fabs((got) - (want)) <= (tolerance))

static double score(eval_scorer scorer, const char *reply, const char *first, const char *second)
{
    const base_view answers[2] = {base_view_of(first), base_view_of(second)};
    return eval_score(scorer, base_view_of(reply), answers, second == NULL ? 1 : 2);
}

static void exact_wants_the_whole_reply(void **state)
{
    (void)state;
    assert_true(score(EVAL_SCORER_EXACT, " 48213.\n", "48213.", NULL) == 1.0);
    assert_true(score(EVAL_SCORER_EXACT, "48213", "1", "48213") == 1.0);
    assert_true(score(EVAL_SCORER_EXACT, "48213. And", "48213.", NULL) == 0.0);
    assert_true(score(EVAL_SCORER_EXACT, "Paris", "paris", NULL) == 0.0);
    assert_true(score(EVAL_SCORER_EXACT, "", "paris", NULL) == 0.0);
}

static void contains_finds_an_answer_in_any_case(void **state)
{
    (void)state;
    assert_true(score(EVAL_SCORER_CONTAINS, "It is PARIS.", "paris", NULL) == 1.0);
    assert_true(score(EVAL_SCORER_CONTAINS, "It is Pari", "paris", NULL) == 0.0);
    assert_true(score(EVAL_SCORER_CONTAINS, "paris", "Rome", "Paris") == 1.0);
    assert_true(score(EVAL_SCORER_CONTAINS, "", "x", NULL) == 0.0);
}

static void f1_weighs_words_in_common(void **state)
{
    (void)state;
    const double near = 1e-9;
    /* common 2 (cat, sat) of 3 and 2 words: P 2/3, R 1 */
    CHECK_NEAR(score(EVAL_SCORER_F1, "The cat sat down.", "a Cat sat!", NULL), 0.8, near);
    /* a word counts as often as both have it: common 1 of 3 and 2 */
    CHECK_NEAR(score(EVAL_SCORER_F1, "no no no", "no yes", NULL), 0.4, near);
    CHECK_NEAR(score(EVAL_SCORER_F1, "blue", "red", NULL), 0.0, near);
    CHECK_NEAR(score(EVAL_SCORER_F1, "blue sky", "red", "sky blue"), 1.0, near);
    CHECK_NEAR(score(EVAL_SCORER_F1, "", "red", NULL), 0.0, near);
    CHECK_NEAR(score(EVAL_SCORER_F1, "don't", "dont", NULL), 1.0, near);
    CHECK_NEAR(score(EVAL_SCORER_F1, "...", "the", NULL), 1.0, near); /* both empty */
}

static void scorers_are_known_by_name(void **state)
{
    (void)state;
    eval_scorer scorer;
    CHECK_STATUS(eval_scorer_parse(base_view_of("exact"), &scorer), BASE_OK);
    assert_int_equal(scorer, EVAL_SCORER_EXACT);
    CHECK_STATUS(eval_scorer_parse(base_view_of("f1"), &scorer), BASE_OK);
    assert_int_equal(scorer, EVAL_SCORER_F1);
    assert_int_equal(eval_scorer_parse(base_view_of("F1"), &scorer), BASE_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_wants_the_whole_reply),
        cmocka_unit_test(contains_finds_an_answer_in_any_case),
        cmocka_unit_test(f1_weighs_words_in_common),
        cmocka_unit_test(scorers_are_known_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
