#include "worker/model/rows.h"

#include "tests/support/test.h"

static const model_split whole = {.n_ranks = 1};

static void shares_are_all_rows_one_after_the_other_and_none_is_empty(void **state)
{
    (void)state;
    static const int32_t more[] = {0, 1, 2, 3, 63, 64, 65, 4096, 100003};
    for (int32_t n_ranks = 2; n_ranks <= KERN_DEAL_MAX_RANKS; n_ranks++) {
        for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
            const int32_t t = model_rows_shortest(&whole, n_ranks) + more[i];
            int32_t begins[KERN_DEAL_MAX_RANKS + 1];
            int32_t at = 0;
            for (int32_t r = 0; r < n_ranks; r++) {
                const model_rows rows = model_rows_make(&whole, r, n_ranks, t);
                model_rows_begins(&rows, 3, begins);
                assert_true(model_rows_are_shared(&rows));
                assert_int_equal(rows.n_ranks, n_ranks);
                assert_int_equal(rows.n_all, t);
                assert_int_equal(rows.begin, at);
                assert_int_equal(rows.begin, r * rows.n_each); /* where a gather puts them */
                assert_int_equal(begins[r], 3 * rows.begin);
                assert_int_equal(begins[r + 1], 3 * rows.end);
                assert_in_range(model_rows_count(&rows), 1, rows.n_each);
                assert_true(rows.n_each <= t / n_ranks + 1);
                at = rows.end;
            }
            assert_int_equal(at, t);
        }
    }
}

static void check_unshared(const model_split *split, int32_t rank, int32_t n_ranks, int32_t t)
{
    const model_rows rows = model_rows_make(split, rank, n_ranks, t);
    assert_false(model_rows_are_shared(&rows));
    assert_int_equal(rows.begin, 0);
    assert_int_equal(rows.end, t);
    assert_int_equal(rows.n_all, t);
    assert_int_equal(rows.n_each, t);
}

static void short_steps_and_shared_weights_leave_every_rank_all_rows(void **state)
{
    (void)state;
    const model_split split = {.rank = 1, .n_ranks = 4};
    assert_int_equal(model_rows_shortest(&whole, 1), INT32_MAX);
    assert_int_equal(model_rows_shortest(&whole, 2), 2 * MODEL_ROWS_LEAST);
    assert_int_equal(model_rows_shortest(&whole, 100), 100 * 100);
    assert_int_equal(model_rows_shortest(&whole, KERN_DEAL_MAX_RANKS + 1), INT32_MAX);
    assert_int_equal(model_rows_shortest(&split, 4), INT32_MAX);
    check_unshared(&whole, 0, 1, 1 << 20);
    check_unshared(&whole, 0, 4, 0);
    check_unshared(&whole, 3, 4, 4 * MODEL_ROWS_LEAST - 1);
    check_unshared(&split, 1, 4, 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_all_rows_one_after_the_other_and_none_is_empty),
        cmocka_unit_test(short_steps_and_shared_weights_leave_every_rank_all_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
