#include "worker/bench/chunks.h"

#include "tests/support/test.h"

#include <math.h>

static void the_first_the_last_and_what_lies_between_are_timed(void **state)
{
    (void)state;
    const struct {
        int64_t n_tokens;
        int32_t chunk, n_timed;
        int64_t begins[BENCH_MAX_TIMED];
    } cases[] = {
        {8192, 8192, 1, {0}},
        {8192 + 1, 8192, 2, {0, 8192}},
        {100, 8192, 1, {0}},
        {2 * 512, 512, 2, {0, 512}},
        {8 * 512, 512, 5, {0, 1024, 2048, 2560, 3584}},
        {64 * 8192, 8192, 5, {0, 16 * 8192, 32 * 8192, 47 * 8192, 63 * 8192}},
        {1000, 128, 6, {0, 256, 384, 640, 768, 896}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bench_chunks c = bench_chunks_of(cases[i].n_tokens, cases[i].chunk);
        assert_int_equal(c.n_timed, cases[i].n_timed);
        for (int32_t k = 0; k < c.n_timed; k++) {
            assert_int_equal(c.begins[k], cases[i].begins[k]);
            const int64_t left = c.n_tokens - c.begins[k];
            assert_int_equal(bench_chunks_tokens(&c, k), left < c.chunk ? left : c.chunk);
        }
    }
}

/* Whatever the lengths: times on a line add up to what all chunks take, one by one. */
static void times_on_a_line_add_up(void **state)
{
    (void)state;
    for (int64_t n_tokens = 1; n_tokens < 40 * 128; n_tokens += 61) {
        const bench_chunks c = bench_chunks_of(n_tokens, 128);
        double times[BENCH_MAX_TIMED];
        double all = 0.0;
        for (int64_t at = 0; at < n_tokens; at += 128) {
            const int64_t n = n_tokens - at < 128 ? n_tokens - at : 128;
            all += (double)n * (3.0 + 0.25 * (double)at);
        }
        for (int32_t i = 0; i < c.n_timed; i++) {
            times[i] = bench_chunks_tokens(&c, i) * (3.0 + 0.25 * (double)c.begins[i]);
        }
        assert_true(fabs(bench_chunks_total(&c, times) - all) < 1e-9 * all);
    }
}

static void a_chunk_is_whole_blocks(void **state)
{
    (void)state;
    CHECK_STATUS(bench_chunks_check(128), BASE_OK);
    CHECK_STATUS(bench_chunks_check(BENCH_MAX_CHUNK), BASE_OK);
    static const int32_t wrong[] = {0, -128, 100, 200, BENCH_MAX_CHUNK + 128};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_STATUS(bench_chunks_check(wrong[i]), BASE_BAD_INPUT);
    }
    assert_string_equal(base_last_error(),
                        "--prefill-chunk is 8320, allowed are multiples of 128 up to 8192");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_the_last_and_what_lies_between_are_timed),
        cmocka_unit_test(times_on_a_line_add_up),
        cmocka_unit_test(a_chunk_is_whole_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
