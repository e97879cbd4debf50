#include "coordinator/text/bpe.h"

#include "base/random.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/naive_bpe.h"
#include "tests/support/test.h"

#define N_MERGES  40
#define MAX_BYTES 300

static void fill_byte_ids(int32_t byte_ids[256])
{
    for (int32_t b = 0; b < 256; b++) {
        byte_ids[b] = b;
    }
}

/* Merges of ids that exist by then; joined ids are new, so that some merges build on others.
 * Their order is shuffled, so that a later join may have a lower rank. */
static void make_merges(uint64_t seed, text_bpe_merge merges[N_MERGES])
{
    for (int32_t i = 0; i < N_MERGES; i++) {
        const uint64_t n_ids = 3 + (uint64_t)i;
        const uint64_t l = base_random_u64(seed, 0, 2 * (uint64_t)i) % n_ids;
        const uint64_t r = base_random_u64(seed, 0, 2 * (uint64_t)i + 1) % n_ids;
        merges[i].left = (int32_t)(l < 3 ? 'a' + l : 256 + l - 3);
        merges[i].right = (int32_t)(r < 3 ? 'a' + r : 256 + r - 3);
        merges[i].joined = 256 + i;
    }
    for (uint64_t i = 0; i < N_MERGES; i++) {
        const uint64_t j = base_random_u64(seed, 1, i) % N_MERGES;
        const text_bpe_merge m = merges[i];
        merges[i] = merges[j];
        merges[j] = m;
    }
}

static void merging_is_what_the_definition_says(void **state)
{
    (void)state;
    int32_t byte_ids[256];
    fill_byte_ids(byte_ids);
    size_t n_joined = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        text_bpe_merge merges[N_MERGES];
        text_bpe bpe;
        text_bpe_scratch scratch;
        make_merges(seed, merges);
        CHECK_STATUS(text_bpe_init(&bpe, byte_ids, merges, N_MERGES, &base_heap), BASE_OK);
        text_bpe_scratch_init(&scratch, &base_heap);
        for (uint64_t round = 0; round < 12; round++) {
            char text[MAX_BYTES];
            int32_t want[MAX_BYTES];
            const int32_t *ids = NULL;
            size_t n_ids = 0;
            const size_t n = round < 8 ? 1 + base_random_u64(seed, 2, round) % 60
                                       : 41 + base_random_u64(seed, 2, round) % (MAX_BYTES - 41);
            for (size_t i = 0; i < n; i++) {
                text[i] = (char)('a' + base_random_u64(seed, 3 + round, i) % 3);
                want[i] = text[i];
            }
            const size_t n_want = naive_merge(merges, N_MERGES, want, n);
            CHECK_STATUS(text_bpe_encode(&bpe, (base_view){text, n}, &scratch, &ids, &n_ids),
                         BASE_OK);
            assert_int_equal(n_ids, n_want);
            assert_memory_equal(ids, want, n_want * sizeof *want);
            n_joined += n - n_ids;
        }
        text_bpe_scratch_reset(&scratch);
        text_bpe_reset(&bpe);
    }
    assert_true(n_joined > 1000);
}

static void of_a_pair_that_is_there_twice_the_later_counts(void **state)
{
    (void)state;
    static const text_bpe_merge merges[] = {{'a', 'b', 256}, {'b', 'c', 257}, {'a', 'b', 256}};
    int32_t byte_ids[256];
    text_bpe bpe;
    text_bpe_scratch scratch;
    const int32_t *ids = NULL;
    size_t n_ids = 0;
    fill_byte_ids(byte_ids);
    CHECK_STATUS(text_bpe_init(&bpe, byte_ids, merges, 3, &base_heap), BASE_OK);
    text_bpe_scratch_init(&scratch, &base_heap);
    CHECK_STATUS(text_bpe_encode(&bpe, (base_view){"abc", 3}, &scratch, &ids, &n_ids), BASE_OK);
    assert_int_equal(n_ids, 2);
    assert_int_equal(ids[0], 'a');
    assert_int_equal(ids[1], 257);
    text_bpe_scratch_reset(&scratch);
    text_bpe_reset(&bpe);
}

/* How a text of the length n goes on: letters of a, b and c. */
static char one_letter(size_t i)
{
    (void)i;
    return 'a';
}

static char two_in_turn(size_t i)
{
    return (char)('a' + i % 2);
}

static char ever_longer_runs(size_t i)
{
    return (char)('a' + (__builtin_clzll(i + 1) & 1));
}

static char random_letters(size_t i)
{
    return (char)('a' + base_random_u64(7, 99, i) % 3);
}

/* A merge of every pair of a, b, c, and of equals with each other up to 64 letters: what is stale in the
 * heap, and how deep it is, is then worst. */
static size_t greedy_merges(text_bpe_merge *merges)
{
    size_t n = 0;
    for (int32_t i = 0; i < 9; i++) {
        merges[n++] = (text_bpe_merge){'a' + i / 3, 'a' + i % 3, 256 + i};
    }
    for (int32_t i = 0; i < 45; i++) {
        merges[n++] = (text_bpe_merge){256 + i, 256 + i, 265 + i};
    }
    return n;
}

static void the_work_of_merging_is_within_n_log_n(void **state)
{
    (void)state;
    enum { SHORTEST = 1 << 8, LONGEST = 1 << 15 };
    static char (*const letters[])(size_t i) = {one_letter, two_in_turn, ever_longer_runs,
                                                random_letters};
    static char text[LONGEST];
    uint64_t most = 0; /* steps a symbol */
    int32_t byte_ids[256];
    fill_byte_ids(byte_ids);
    for (size_t k = 0; k < 2 * sizeof letters / sizeof letters[0]; k++) {
        text_bpe_merge merges[64];
        text_bpe bpe;
        text_bpe_scratch scratch;
        size_t n_merges = 54;
        if (k % 2 == 0) {
            n_merges = greedy_merges(merges);
        } else {
            make_merges(k, merges);
            n_merges = N_MERGES;
        }
        for (size_t i = 0; i < LONGEST; i++) {
            text[i] = letters[k / 2](i);
        }
        CHECK_STATUS(text_bpe_init(&bpe, byte_ids, merges, n_merges, &base_heap), BASE_OK);
        text_bpe_scratch_init(&scratch, &base_heap);
        for (size_t n = SHORTEST; n <= LONGEST; n *= 2) {
            const int32_t *ids = NULL;
            size_t n_ids = 0;
            const uint64_t before = scratch.n_steps;
            CHECK_STATUS(text_bpe_encode(&bpe, (base_view){text, n}, &scratch, &ids, &n_ids),
                         BASE_OK);
            const uint64_t steps = scratch.n_steps - before;
            assert_true(steps >= n);
            /* n pairs at first and two more a merge are 3n entries: each is pushed (log2 2n moves), popped (one
             * more) and looked up for, three times; making the heap of the first n takes 2n more. */
            const uint64_t depth = 65 - (uint64_t)__builtin_clzll(n);
            if (steps > n * (3 * (2 * depth + 1 + 3) + 2)) {
                fail_msg("text %zu: %llu steps for %zu symbols", k, (unsigned long long)steps, n);
            }
            most = steps / n > most ? steps / n : most;
        }
        text_bpe_scratch_reset(&scratch);
        text_bpe_reset(&bpe);
    }
    assert_true(most > 20); /* the texts do make work: a scan would be n steps a merge */
}

static void failed_allocations_are_reported(void **state)
{
    (void)state;
    static const text_bpe_merge merge = {'a', 'a', 256};
    failing_alloc f = {.fail_at = 0};
    const base_alloc mem = {failing_get, failing_put, &f};
    int32_t byte_ids[256];
    text_bpe bpe;
    text_bpe_scratch scratch;
    const int32_t *ids = NULL;
    size_t n_ids = 0;
    fill_byte_ids(byte_ids);
    CHECK_STATUS(text_bpe_init(&bpe, byte_ids, &merge, 1, &mem), BASE_NO_MEMORY);
    CHECK_STATUS(text_bpe_init(&bpe, byte_ids, &merge, 1, &mem), BASE_OK);
    text_bpe_scratch_init(&scratch, &mem);
    f.fail_at = f.n_calls;
    CHECK_STATUS(text_bpe_encode(&bpe, (base_view){"aaa", 3}, &scratch, &ids, &n_ids),
                 BASE_NO_MEMORY);
    assert_null(ids);
    text_bpe_scratch_reset(&scratch);
    text_bpe_reset(&bpe);
    assert_int_equal(f.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_is_what_the_definition_says),
        cmocka_unit_test(of_a_pair_that_is_there_twice_the_later_counts),
        cmocka_unit_test(the_work_of_merging_is_within_n_log_n),
        cmocka_unit_test(failed_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
