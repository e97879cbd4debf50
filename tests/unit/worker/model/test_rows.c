#include "worker/model/rows.h"

#include "tests/support/test.h"
#include "worker/model/scratch.h"

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

/* Bytes of the longest call of a step. */
static int64_t call_bytes(const model_config *c, const model_split *split, int32_t n_ranks,
                          int32_t t)
{
    const model_rows rows = model_rows_make(split, 0, n_ranks, t);
    const int64_t row = 4 * (c->head_dim + 1);
    int64_t most = row * c->n_heads * t; /* dealt, or gathered */
    if (model_rows_are_shared(&rows)) {
        const int64_t received = row * c->n_heads * rows.n_each * n_ranks;
        return received > most ? received : most;
    }
    for (int32_t r = 0; model_is_split(split) && r < n_ranks; r++) {
        const int64_t received =
            row * n_ranks * t * (split->head_begins[r + 1] - split->head_begins[r]);
        const int64_t sum = 4 * ((int64_t)t * c->width + n_ranks);
        most = received > most ? received : most;
        most = sum > most ? sum : most;
    }
    return most;
}

static void the_longest_step_is_the_last_whose_exchanges_a_comm_takes(void **state)
{
    (void)state;
    static const struct {
        int32_t n_heads, n_kv_heads, head_dim, width, n_ranks;
        bool splits;
        int32_t want; /* 0: what call_bytes says */
    } rows[] = {
        {16, 2, 128, 2048, 1, false, SCRATCH_MAX_TOKENS},
        {16, 2, 128, 2048, 3, false, 260109}, /* of 260111 that 2^31 - 1 bytes hold */
        {16, 2, 128, 2048, 4, false, 260108},
        {32, 8, 128, 4096, 2, false, 130054},
        {2, 1, 64, 128, 2, false, SCRATCH_MAX_TOKENS},
        {4096, 4096, 128, 65536, 64, false, 0}, /* too long to be shared */
        {32, 8, 128, 4096, 4, true, 0},
        {16, 2, 128, 2048, 3, true, 0}, /* a rank has half of the heads */
        {16, 2, 64, 65536, 2, true, 0}, /* sums are longer than partials */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const model_config c = {.n_heads = rows[i].n_heads,
                                .n_kv_heads = rows[i].n_kv_heads,
                                .head_dim = rows[i].head_dim,
                                .width = rows[i].width,
                                .ffn_width = 4096,
                                .n_vocab = 96000};
        const int32_t n = rows[i].n_ranks;
        model_split split;
        CHECK_STATUS(model_split_make(&c, 0, rows[i].splits ? n : 1, &split), BASE_OK);
        const int32_t longest = model_rows_longest(&c, &split, n);
        if (rows[i].want != 0) {
            assert_int_equal(longest, rows[i].want);
        }
        if (longest < SCRATCH_MAX_TOKENS) {
            assert_true(call_bytes(&c, &split, n, longest) <= COMM_MAX_BYTES);
            assert_true(call_bytes(&c, &split, n, longest + 1) > COMM_MAX_BYTES);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_all_rows_one_after_the_other_and_none_is_empty),
        cmocka_unit_test(short_steps_and_shared_weights_leave_every_rank_all_rows),
        cmocka_unit_test(the_longest_step_is_the_last_whose_exchanges_a_comm_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
