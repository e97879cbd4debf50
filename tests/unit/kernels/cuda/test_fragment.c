#include "kernels/cuda/fragment.h"

#include "kernels/cuda/fragment_order.h"
#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

static const int32_t widths[] = {1, 2, 3, 4, 5, 6, 7, 8, 16};
#define N_WIDTHS 9

/* A page of random bytes in its sections; what no section owns is zero. */
static uint8_t *random_page(const kern_head_format *f, uint64_t stream)
{
    uint8_t *page = parity_memory(f->head_page_bytes, 1);
    for (int32_t i = 0; i < f->head_page_bytes; i++) {
        page[i] = (uint8_t)base_random_u64(PARITY_SEED, stream, (uint64_t)i);
    }
    return page;
}

static int64_t ones(const uint8_t *p, int64_t n)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += __builtin_popcount(p[i]);
    }
    return sum;
}

static void check_both_ways(const kern_head_format *f, uint64_t stream)
{
    const size_t n = (size_t)f->head_page_bytes;
    uint8_t *page = random_page(f, stream);
    uint8_t *there = parity_memory((int64_t)n, 1);
    uint8_t *back = parity_memory((int64_t)n, 1);
    kern_fragment_from_plain(f, page, there);
    kern_fragment_to_plain(f, there, back);
    assert_memory_equal(page, back, n);
    assert_int_not_equal(memcmp(page, there, n), 0);
    kern_fragment_to_plain(f, page, there); /* any bytes are a page in either order */
    kern_fragment_from_plain(f, there, back);
    assert_memory_equal(page, back, n);
    free(page);
    free(there);
    free(back);
}

static void every_width_and_segment_size_comes_back(void **state)
{
    (void)state;
    for (int32_t head_dim = 64; head_dim <= 128; head_dim += 64) {
        for (int32_t n = 1; n <= head_dim / 16 && n <= KERN_MAX_SEGMENTS; n *= 2) {
            for (int32_t w = 0; w < N_WIDTHS; w++) {
                int32_t bits[KERN_MAX_SEGMENTS];
                page_fixture fx;
                for (int32_t i = 0; i < n; i++) {
                    bits[i] = widths[(w + i) % N_WIDTHS];
                }
                page_fixture_init(&fx, head_dim, n, bits, bits, false, 1);
                assert_true(kern_fragment_fits(&fx.format));
                check_both_ways(&fx.format, (uint64_t)w);
            }
        }
    }
}

/* 48 dims: a whole tile and a half one. */
static void a_segment_of_48_dims_comes_back(void **state)
{
    (void)state;
    for (int32_t w = 0; w < N_WIDTHS; w++) {
        static const int32_t two[2] = {2, 2};
        page_fixture fx;
        page_fixture_init(&fx, 64, 2, two, two, false, 1);
        for (int32_t s = 0; s < 2; s++) {
            kern_side *side = s == 0 ? &fx.format.k : &fx.format.v;
            side->segments[0].n_dims = 48;
            side->segments[1].first_dim = 48;
            side->segments[1].n_dims = 16;
            for (int32_t i = 0; i < 2; i++) {
                kern_segment *g = &side->segments[i];
                g->bits = widths[w];
                g->codes_offset = s * 20480 + i * 16384;
                g->norms_offset = s * 20480 + 12288 + i * 256;
            }
        }
        fx.format.head_page_bytes = 40960 + 128;
        check_both_ways(&fx.format, 100 + (uint64_t)w);
    }
}

/* A permutation moves bits and makes none: one bit in, one bit out, and every bit of a section is reached. */
static void one_bit_stays_one_bit(void **state)
{
    (void)state;
    for (int32_t w = 0; w < N_WIDTHS; w++) {
        if (widths[w] == 4) {
            continue; /* its codes turn into sign and magnitude */
        }
        page_fixture fx;
        page_fixture_init(&fx, 64, 1, &widths[w], &widths[w], false, 1);
        const kern_segment *g = &fx.format.v.segments[0];
        const int64_t n = fx.format.head_page_bytes;
        uint8_t *page = parity_memory(n, 1);
        uint8_t *there = parity_memory(n, 1);
        for (int32_t i = 0; i < 40; i++) {
            const uint64_t section = 8u * KERN_BLOCK_TOKENS * 64u * (uint64_t)widths[w] / 8u;
            const uint64_t bit = base_random_u64(PARITY_SEED, 7, (uint64_t)i) % section;
            memset(page, 0, (size_t)n);
            page[g->codes_offset + (int64_t)(bit / 8)] = (uint8_t)(1u << (bit % 8));
            kern_fragment_from_plain(&fx.format, page, there);
            assert_int_equal(ones(there, n), 1);
            assert_int_equal(ones(there + g->codes_offset, (int64_t)(section / 8)), 1);
        }
        free(page);
        free(there);
    }
}

/* By hand, from the drawing in fragment_order.h. */
static void three_bit_codes_lie_where_the_kernel_looks(void **state)
{
    (void)state;
    const int32_t three = 3;
    page_fixture fx;
    page_fixture_init(&fx, 128, 1, &three, &three, false, 1);
    const int64_t n = fx.format.head_page_bytes;
    uint8_t *page = parity_memory(n, 1);
    uint8_t *there = parity_memory(n, 1);
    /* K, token 64 + 16 + 8 + 2, dim 32 + 16 + 4 * 3 + 1, code 7: half 1, tile 1, u 1, b 1: pair 3, lane 11,
     * n 5: the fourth pair, so one bit in each of words 0, 1, 2, bit 23 */
    const int32_t at = (64 + 16 + 8 + 2) * 48 * 8 + (32 + 16 + 12 + 1) * 3;
    for (int32_t k = at; k < at + 3; k++) {
        page[k / 8] = (uint8_t)(page[k / 8] | 1u << (k % 8));
    }
    kern_fragment_from_plain(&fx.format, page, there);
    const int32_t tile = 64 * 48 + 768;
    for (int32_t w = 0; w < 3; w++) {
        assert_int_equal(there[tile + 11 * 16 + 4 * w + 2], 0x80);
    }
    assert_int_equal(ones(there, n), 3);
    free(page);
    free(there);
}

/* K, the same token and dim: of 1 bit word 1, byte 1, bit 1 + 4; of 4, code 5: word 3, nibble 5, magnitude 2 below. */
static void one_and_four_bit_codes_lie_where_the_kernel_looks(void **state)
{
    (void)state;
    for (int32_t bits = 1; bits <= 4; bits += 3) {
        page_fixture fx;
        page_fixture_init(&fx, 128, 1, &bits, &bits, false, 1);
        uint8_t *page = parity_memory(fx.format.head_page_bytes, 1);
        uint8_t *there = parity_memory(fx.format.head_page_bytes, 1);
        const int32_t at = (64 + 16 + 8 + 2) * 128 + 32 + 16 + 12 + 1;
        page[at * bits / 8] = (uint8_t)((bits == 1 ? 1 : 5) << at * bits % 8);
        kern_fragment_from_plain(&fx.format, page, there);
        const int32_t tile = (64 * 128 + 64 * 32) * bits / 8;
        if (bits == 1) {
            assert_int_equal(there[tile + 11 * 8 + 4 + 1], 0x20);
            assert_int_equal(ones(there, fx.format.head_page_bytes), 1);
        } else {
            assert_int_equal(there[tile + 11 * 16 + 12 + 2], 0xaf); /* beside a code 0 */
        }
        free(page);
        free(there);
    }
}

static void a_segment_of_8_dims_does_not_fit(void **state)
{
    (void)state;
    const int32_t bits[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    page_fixture fx;
    page_fixture_init(&fx, 64, 8, bits, bits, false, 1);
    assert_false(kern_fragment_fits(&fx.format));
}

/* V's group is at most the head. */
static void affine_fixture(page_fixture *fx, int32_t head_dim, int32_t bits, int32_t group)
{
    const int32_t k = PAGE_AFFINE(bits, group);
    const int32_t v = PAGE_AFFINE(bits, group < head_dim ? group : head_dim);
    page_fixture_init(fx, head_dim, 1, &k, &v, false, 1);
}

static void every_affine_width_and_group_comes_back(void **state)
{
    static const int32_t affine_widths[] = {2, 4, 8};
    (void)state;
    for (int32_t i = 0; i < 18; i++) {
        page_fixture fx;
        affine_fixture(&fx, i % 2 == 0 ? 64 : 128, affine_widths[i / 2 % 3], 32 << i / 6);
        assert_true(kern_fragment_fits(&fx.format));
        check_both_ways(&fx.format, 200 + (uint64_t)i);
    }
}

static void one_bit_of_an_affine_page_stays_one_bit(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 3; i++) {
        page_fixture fx;
        affine_fixture(&fx, 128, 2 << i, 32);
        const int64_t n = fx.format.head_page_bytes;
        uint8_t *page = parity_memory(n, 1);
        uint8_t *there = parity_memory(n, 1);
        for (int32_t j = 0; j < 80; j++) {
            const kern_segment *g = j % 2 == 0 ? fx.format.k.segments : fx.format.v.segments;
            const int64_t at = (int64_t)(base_random_u64(PARITY_SEED, 8, (uint64_t)j) %
                                         (8u * 2048u * (uint64_t)g->bits));
            memset(page, 0, (size_t)n);
            page[g->codes_offset + at / 8] = (uint8_t)(1u << (at % 8));
            kern_fragment_from_plain(&fx.format, page, there);
            assert_int_equal(ones(there, n), 1);
            assert_int_equal(ones(there + g->codes_offset, 2048 * g->bits), 1);
        }
        free(page);
        free(there);
    }
}

/* By hand, from the drawing in fragment_order.h. */
static void affine_codes_lie_where_the_kernel_looks(void **state)
{
    (void)state;
    page_fixture fx;
    affine_fixture(&fx, 128, 4, 32);
    const kern_segment *k = fx.format.k.segments;
    const kern_segment *v = fx.format.v.segments;
    const int64_t n = fx.format.head_page_bytes;
    uint8_t *page = parity_memory(n, 1);
    uint8_t *there = parity_memory(n, 1);
    /* K, token 32 + 8 * 3 + 2, dim 32 + 8 * 1 + 4 + 3: band 1, part 3, square 3, lane 9, n 3.  Word 2 * 3 + 1 of the
     * band: vector 1, word 3; bits 8 + 16 + 2 + 4 and on: 30, 31, 0, 1 */
    page[k->codes_offset + 58 * 64 + 47 / 2] = 0xf0;
    page[k->scales_offset + 2 * (2 * 128 + 9)] = 0x11; /* stays where it is */
    /* V, token 16 * 5 + 8 + 2 * 1 + 1, dim 64 + 2: band 2, part 0, square 5, lane 9, n 3.  Word 10: vector 2, word
     * 2; bits 26 to 29.  Its scale: group 2, number 32 * 2 + 8 * 1 + 4 * 1 + 2 * 1 + 1 */
    page[v->codes_offset + 91 * 64 + 66 / 2] = 0x0f;
    page[v->scales_offset + 2 * (91 * 4 + 2)] = 0x22;
    kern_fragment_from_plain(&fx.format, page, there);
    const int32_t in_k = k->codes_offset + 2048 + 512 + 9 * 16 + 12;
    assert_int_equal(there[in_k], 0x03);
    assert_int_equal(there[in_k + 3], 0xc0);
    assert_int_equal(there[k->scales_offset + 2 * (2 * 128 + 9)], 0x11);
    assert_int_equal(there[v->codes_offset + 2 * 2048 + 2 * 512 + 9 * 16 + 8 + 3], 0x3c);
    assert_int_equal(there[v->scales_offset + 2 * (2 * 128 + 64 + 8 + 4 + 2 + 1)], 0x22);
    assert_int_equal(ones(there, n), 12);
    free(page);
    free(there);
}

/* Only whole sides, K by channel and V by position, beside another of them or bf16. */
static void other_affine_segments_do_not_fit(void **state)
{
    (void)state;
    const int32_t affine[] = {PAGE_AFFINE(4, 32), PAGE_AFFINE(2, 32)};
    const int32_t codes[] = {4, 4};
    const int32_t plain[] = {16};
    page_fixture fx;
    page_fixture_init(&fx, 64, 1, affine, plain, false, 1);
    assert_true(kern_fragment_fits(&fx.format));
    page_fixture_init(&fx, 64, 1, plain, affine, false, 1);
    assert_true(kern_fragment_fits(&fx.format));
    page_fixture_init(&fx, 64, 1, affine, codes, false, 1);
    assert_false(kern_fragment_fits(&fx.format));
    page_fixture_init(&fx, 64, 2, affine, affine, false, 1);
    assert_false(kern_fragment_fits(&fx.format));
    page_fixture_init(&fx, 64, 1, affine, affine, false, 1);
    fx.format.k.segments[0].kind = KERN_AFFINE_POSITION;
    assert_false(kern_fragment_fits(&fx.format));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_and_segment_size_comes_back),
        cmocka_unit_test(a_segment_of_48_dims_comes_back),
        cmocka_unit_test(one_bit_stays_one_bit),
        cmocka_unit_test(three_bit_codes_lie_where_the_kernel_looks),
        cmocka_unit_test(one_and_four_bit_codes_lie_where_the_kernel_looks),
        cmocka_unit_test(a_segment_of_8_dims_does_not_fit),
        cmocka_unit_test(every_affine_width_and_group_comes_back),
        cmocka_unit_test(one_bit_of_an_affine_page_stays_one_bit),
        cmocka_unit_test(affine_codes_lie_where_the_kernel_looks),
        cmocka_unit_test(other_affine_segments_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
