#include "kvshard/owner.h"

#include "base/random.h"
#include "tests/support/test.h"

static void tokens_touch_blocks_of_128(void **state)
{
    (void)state;
    static const int64_t rows[][2] = {
        {0, 0}, {1, 1}, {127, 1}, {128, 1}, {129, 2}, {256, 2}, {INT64_MAX, (INT64_C(1) << 56)}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(kv_blocks_of_tokens(rows[i][0]), rows[i][1]);
    }
}

static void owners_go_round_inside_a_run(void **state)
{
    (void)state;
    static const kv_run runs[] = {{0, 2}, {5, 0}, {6, 3}};
    static const int32_t want[] = {2, 3, 0, 1, 2, 0, 3, 0, 1, 2, 3};
    for (int32_t block = 0; block < 11; block++) {
        assert_int_equal(kv_owner_of(runs, 3, block, 4), want[block]);
    }
    assert_int_equal(kv_owner_of(runs, 3, INT32_MAX, 4), (3 + (INT64_C(2147483647) - 6)) % 4);
    assert_int_equal(kv_owner_of(runs, 1, 1000, 1), 0);
}

static void counts_are_those_of_walking_the_blocks(void **state)
{
    (void)state;
    for (uint64_t c = 0; c < 300; c++) {
        const int32_t n_ranks = 1 + (int32_t)(base_random_u64(2, c, 0) % 5);
        const int32_t n_runs = 1 + (int32_t)(base_random_u64(2, c, 1) % 4);
        kv_run runs[4] = {{0, 0}};
        for (int32_t i = 0; i < n_runs; i++) {
            const uint64_t r = base_random_u64(2, c, 10 + (uint64_t)i);
            runs[i].start_rank = (int32_t)(r % (uint64_t)n_ranks);
            runs[i].first_block = i == 0 ? 0 : runs[i - 1].first_block + 1 + (int32_t)(r >> 60);
        }
        const int32_t begin = (int32_t)(base_random_u64(2, c, 2) % 40);
        const int32_t end = begin + (int32_t)(base_random_u64(2, c, 3) % 40);
        int32_t want[5] = {0};
        int32_t got[5];
        for (int32_t b = begin; b < end; b++) {
            want[kv_owner_of(runs, n_runs, b, n_ranks)]++;
        }
        kv_owner_count(runs, n_runs, begin, end, n_ranks, got);
        assert_memory_equal(got, want, (size_t)n_ranks * sizeof got[0]);
    }
}

static void a_run_starts_where_the_fullest_rank_keeps_most(void **state)
{
    (void)state;
    static const struct {
        int64_t free_blocks[4];
        int32_t n_ranks;
        int64_t n_blocks;
        int32_t want;
    } rows[] = {
        {{10, 10, 10, 10}, 4, 1, 0},  /* all alike: the lowest */
        {{9, 10, 10, 10}, 4, 1, 1},   /* rank 0 would be left with 8 */
        {{1, 5, 9, 5}, 4, 1, 2},      /* rank 0 stays the fullest: the emptiest takes it */
        {{5, 9, 9, 5}, 4, 2, 1},      /* two blocks over the two emptiest */
        {{9, 5, 5, 9}, 4, 2, 3},      /* the same, round the end */
        {{3, 3, 3, 3}, 4, 12, 0},     /* fits exactly */
        {{3, 3, 3, 3}, 4, 13, -1},    /* one too many */
        {{3, 3, 4, 3}, 4, 13, 2},     /* the odd block fits on rank 2 alone */
        {{0, 0, 0, 1}, 4, 1, 3},      /* one block left anywhere */
        {{0, 0, 0, 0}, 4, 1, -1},     /* full */
        {{0, 0, 0, 0}, 4, 0, 0},      /* nothing to place */
        {{7, 0, 0, 0}, 1, 7, 0},      /* one rank */
        {{7, 0, 0, 0}, 1, 8, -1},     /* one rank, too many */
        {{100, 0, 100, 0}, 4, 2, -1}, /* room in sum, but not in turn */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(kv_owner_place(rows[i].free_blocks, rows[i].n_ranks, rows[i].n_blocks),
                         rows[i].want);
    }
}

static void placing_sequence_after_sequence_keeps_ranks_level(void **state)
{
    (void)state;
    int64_t free_blocks[4] = {1000, 1000, 1000, 1000};
    for (uint64_t i = 0; i < 400; i++) {
        const int64_t n = 1 + (int64_t)(base_random_u64(3, 0, i) % 9);
        const int32_t start = kv_owner_place(free_blocks, 4, n);
        assert_in_range(start, 0, 3);
        const kv_run run = {0, start};
        int32_t counts[4];
        kv_owner_count(&run, 1, 0, (int32_t)n, 4, counts);
        int64_t low = INT64_MAX;
        int64_t high = 0;
        for (int32_t r = 0; r < 4; r++) {
            free_blocks[r] -= counts[r];
            low = free_blocks[r] < low ? free_blocks[r] : low;
            high = free_blocks[r] > high ? free_blocks[r] : high;
        }
        assert_true(low >= 0);
        assert_true(high - low <= 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_touch_blocks_of_128),
        cmocka_unit_test(owners_go_round_inside_a_run),
        cmocka_unit_test(counts_are_those_of_walking_the_blocks),
        cmocka_unit_test(a_run_starts_where_the_fullest_rank_keeps_most),
        cmocka_unit_test(placing_sequence_after_sequence_keeps_ranks_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
