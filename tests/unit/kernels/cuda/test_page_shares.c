#include "kernels/cuda/page_shares.h"

#include "kernels/cuda/formats.h"
#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#define N_HEADS 8

static page_fixture fx[2];

/* Head `odd` has K of two segments of those widths; the others one of `bits`, as V of all. */
static void make_heads(kern_head_format *formats, int32_t bits, int32_t odd, int32_t low,
                       int32_t high)
{
    const int32_t both[2] = {low, high};
    const int32_t v[2] = {bits, bits};
    page_fixture_init(&fx[0], 128, 1, v, v, false, 1);
    page_fixture_init(&fx[1], 128, 2, both, v, false, 1);
    for (int32_t h = 0; h < N_HEADS; h++) {
        formats[h] = h == odd ? fx[1].format : fx[0].format;
    }
}

static void heads_of_one_format_have_their_bytes(void **state)
{
    (void)state;
    for (int32_t bits = 1; bits <= 8; bits++) {
        kern_head_format formats[N_HEADS];
        int32_t units[N_HEADS];
        make_heads(formats, bits, -1, bits, bits);
        kern_page_shares(formats, N_HEADS, true, units);
        for (int32_t h = 0; h < N_HEADS; h++) {
            assert_int_equal(units[h], formats[h].head_page_bytes / CUDA_UNIT_BYTES);
        }
    }
}

static void unknown_pages_have_their_bytes(void **state)
{
    (void)state;
    kern_head_format formats[N_HEADS];
    int32_t units[N_HEADS];
    make_heads(formats, 4, 3, 2, 16);
    kern_page_shares(formats, N_HEADS, false, units);
    for (int32_t h = 0; h < N_HEADS; h++) {
        assert_int_equal(units[h],
                         (formats[h].head_page_bytes + CUDA_UNIT_BYTES / 2) / CUDA_UNIT_BYTES);
    }
}

/* A head whose K is slow has more than its bytes, the others less, together their bytes. */
static void a_slow_head_has_more_than_its_bytes(void **state)
{
    (void)state;
    for (int32_t odd = 0; odd < N_HEADS; odd += N_HEADS - 1) {
        kern_head_format formats[N_HEADS];
        int32_t units[N_HEADS];
        int64_t bytes = 0;
        int64_t all = 0;
        make_heads(formats, 4, odd, 2, 7);
        kern_page_shares(formats, N_HEADS, true, units);
        for (int32_t h = 0; h < N_HEADS; h++) {
            const int32_t own = formats[h].head_page_bytes / CUDA_UNIT_BYTES;
            if (h == odd) {
                assert_in_range(units[h], own + own / 4, own * 3);
            } else {
                assert_in_range(units[h], own / 2, own - 1);
            }
            bytes += formats[h].head_page_bytes;
            all += units[h] * CUDA_UNIT_BYTES;
        }
        assert_in_range(all, bytes - N_HEADS * CUDA_UNIT_BYTES, bytes + N_HEADS * CUDA_UNIT_BYTES);
    }
}

/* Where all are slow, who takes longer has more, whatever the bytes. */
static void slow_heads_share_by_time(void **state)
{
    (void)state;
    kern_head_format formats[N_HEADS];
    int32_t units[N_HEADS];
    make_heads(formats, 7, 0, 8, 8);
    assert_true(formats[0].head_page_bytes > formats[1].head_page_bytes);
    kern_page_shares(formats, N_HEADS, true, units);
    assert_true(units[0] < units[1]); /* a byte a code is read faster than 7 bits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_of_one_format_have_their_bytes),
        cmocka_unit_test(unknown_pages_have_their_bytes),
        cmocka_unit_test(a_slow_head_has_more_than_its_bytes),
        cmocka_unit_test(slow_heads_share_by_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
