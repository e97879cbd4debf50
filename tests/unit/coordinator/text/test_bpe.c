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
        cmocka_unit_test(failed_allocations_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
