/* The affine page writer and reader (KIVI): golden vectors, the formula of op_pack.h, its bound, odd values. */
#include "kernels/cpu/cpu_page.h"

#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#define KEYS KERN_BLOCK_TOKENS
#define DIM  64

typedef struct affine_case { /* one head of 64 dims */
    page_fixture fx;
    uint16_t rows[2][KEYS][DIM];
    uint8_t *bytes;
    float values[2][KEYS][DIM];
} affine_case;

static affine_case *case_create(int32_t bits, int32_t group)
{
    affine_case *c = parity_memory(1, sizeof *c);
    const int32_t k = PAGE_AFFINE(bits, group);
    const int32_t v = PAGE_AFFINE(bits, group < DIM ? group : DIM);
    page_fixture_init(&c->fx, DIM, 1, &k, &v, false, 1);
    c->bytes = parity_memory(c->fx.format.head_page_bytes, 1);
    for (uint64_t i = 0; i < 2 * KEYS * DIM; i++) {
        (&c->rows[0][0][0])[i] = base_bf16_from_f32((float)base_random_normal(PARITY_SEED, 9, i));
    }
    return c;
}

static void case_destroy(affine_case *c)
{
    free(c->bytes);
    free(c);
}

static const kern_segment *segment_of(const affine_case *c, int32_t side)
{
    return side == 0 ? &c->fx.format.k.segments[0] : &c->fx.format.v.segments[0];
}

/* Writes and reads both sides. */
static void pass_through_page(affine_case *c)
{
    const kern_head_format *f = &c->fx.format;
    cpu_side_encode(&f->k, DIM, c->rows[0][0], c->bytes);
    cpu_side_encode(&f->v, DIM, c->rows[1][0], c->bytes);
    cpu_side_decode(&f->k, DIM, c->bytes, f->head_page_bytes, c->values[0][0]);
    cpu_side_decode(&f->v, DIM, c->bytes, f->head_page_bytes, c->values[1][0]);
}

static uint32_t code_at(const affine_case *c, int32_t side, int32_t row, int32_t d)
{
    const kern_segment *g = segment_of(c, side);
    const int32_t bit = (row * DIM + d) * g->bits;
    return (uint32_t)c->bytes[g->codes_offset + bit / 8] >> bit % 8 & ((1u << g->bits) - 1u);
}

static uint16_t u16_at(const affine_case *c, int32_t section, int32_t index)
{
    uint16_t x;
    memcpy(&x, c->bytes + section + 2 * index, sizeof x);
    return x;
}

/* Index of the pair of an element, from the shapes in page.h. */
static int32_t pair_of(const affine_case *c, int32_t side, int32_t row, int32_t d)
{
    const int32_t group = segment_of(c, side)->group;
    return side == 0 ? row / group * DIM + d : row * (DIM / group) + d / group;
}

/* KIVI's own arithmetic is fp16 throughout; on this vector it agrees with the writer's. */
static void the_golden_vector_of_kivi_gives_its_codes(void **state)
{
    (void)state;
    static const struct {
        int32_t bits;
        uint16_t scale;
        uint32_t words[4]; /* codes, low bits first */
    } rows[] = {
        {2, 0x3d2b, {0x4e5e9394, 0xa4e5393a}},
        {4, 0x3422, {0x851ea730, 0x41da63fc, 0x0d962fb8, 0xc952eb74}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        affine_case *c = case_create(rows[i].bits, 32);
        const int32_t per_word = 32 / rows[i].bits;
        for (int32_t k = 0; k < 32;
             k++) { /* K: positions 64.. of channel 5; V: channels 32.. of row 7 */
            const uint16_t x = base_bf16_from_f32((float)(7 * k % 32) / 8.0f - 1.5f);
            c->rows[0][64 + k][5] = x;
            c->rows[1][7][32 + k] = x;
        }
        pass_through_page(c);
        for (int32_t side = 0; side < 2; side++) {
            const kern_segment *g = segment_of(c, side);
            const int32_t pair = side == 0 ? pair_of(c, 0, 64, 5) : pair_of(c, 1, 7, 32);
            assert_int_equal(u16_at(c, g->scales_offset, pair), rows[i].scale);
            assert_int_equal(u16_at(c, g->minima_offset, pair), 0xbe00);
            for (int32_t k = 0; k < 32; k++) {
                const uint32_t code =
                    side == 0 ? code_at(c, 0, 64 + k, 5) : code_at(c, 1, 7, 32 + k);
                assert_int_equal(code, rows[i].words[k / per_word] >> k % per_word * rows[i].bits &
                                           ((1u << rows[i].bits) - 1u));
            }
        }
        case_destroy(c);
    }
}

/* Every byte from the formula, with plain loops; the value from the bytes; the bound. */
static void pages_follow_the_formula_and_its_bound(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 18; i++) {
        affine_case *c = case_create(2 << i % 3, 32 << i / 3 % 3);
        const int32_t side = i / 9;
        const kern_segment *g = segment_of(c, side);
        const float top = (float)((1 << g->bits) - 1);
        pass_through_page(c);
        for (int32_t e = 0; e < KEYS * DIM; e++) {
            const int32_t row = e / DIM;
            const int32_t d = e % DIM;
            float low = INFINITY;
            float high = -INFINITY;
            for (int32_t k = 0; k < g->group; k++) {
                const uint16_t x = side == 0 ? c->rows[0][row / g->group * g->group + k][d]
                                             : c->rows[1][row][d / g->group * g->group + k];
                low = fminf(low, base_f32_from_bf16(x));
                high = fmaxf(high, base_f32_from_bf16(x));
            }
            const int32_t pair = pair_of(c, side, row, d);
            const uint16_t scale16 = base_f16_from_f32((high - low) / top);
            assert_int_equal(u16_at(c, g->scales_offset, pair), scale16);
            assert_int_equal(u16_at(c, g->minima_offset, pair), base_f16_from_f32(low));
            const float scale = base_f32_from_f16(scale16);
            const float x = base_f32_from_bf16(c->rows[side][row][d]);
            const float code = fminf(fmaxf(nearbyintf((x - low) / scale), 0.0f), top);
            assert_int_equal(code_at(c, side, row, d), code);
            assert_true(c->values[side][row][d] == low + scale * code);
            assert_true(fabsf(x - c->values[side][row][d]) <= scale / 2.0f * (1.0f + 0x1p-9f));
        }
        case_destroy(c);
    }
}

static void ties_round_to_even(void **state)
{
    (void)state;
    static const float x[] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 2.5f, 3.0f, 3.0f};
    static const uint32_t codes[] = {0, 0, 1, 2, 2, 2, 3, 3};
    affine_case *c = case_create(2, 32);
    for (int32_t k = 0; k < 32; k++) {
        c->rows[1][0][k] = base_bf16_from_f32(x[k % 8]);
    }
    pass_through_page(c);
    for (int32_t k = 0; k < 32; k++) {
        assert_int_equal(code_at(c, 1, 0, k), codes[k % 8]);
    }
    case_destroy(c);
}

/* Constant groups, also of a value that is -0 or below every fp16: codes 0 and the value back, no NaN. */
static void a_constant_group_has_codes_0(void **state)
{
    (void)state;
    static const float x[] = {0.0f, -0.0f, -3.25f, 1e-30f, 65504.0f};
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++) {
        affine_case *c = case_create(4, 128);
        const kern_segment *g = segment_of(c, 0);
        for (int32_t j = 0; j < KEYS; j++) {
            c->rows[0][j][9] = base_bf16_from_f32(x[i]);
        }
        pass_through_page(c);
        const float min = base_f32_from_f16(u16_at(c, g->minima_offset, 9));
        assert_int_equal(u16_at(c, g->scales_offset, 9), 0);
        assert_true(u16_at(c, g->minima_offset, 9) != 0x8000u);
        assert_true(min == (fabsf(x[i]) < 1e-20f ? 0.0f : fminf(x[i], 65504.0f)));
        for (int32_t j = 0; j < KEYS; j++) {
            assert_int_equal(code_at(c, 0, j, 9), 0);
            assert_true(c->values[0][j][9] == min);
        }
        case_destroy(c);
    }
}

/* NaN and infinities: the values beside them in their group stay within its range, others do not change. */
static void odd_values_reach_only_their_group(void **state)
{
    (void)state;
    affine_case *plain = case_create(2, 32);
    affine_case *odd = case_create(2, 32);
    for (int32_t side = 0; side < 2; side++) {
        odd->rows[side][3][0] = 0x7fc0u; /* NaN */
        odd->rows[side][40][1] = 0x7f80u;
        odd->rows[side][80][2] = 0xff80u;
    }
    for (int32_t j = 96; j < KEYS; j++) {
        odd->rows[0][j][4] = 0xffffu; /* a group of NaN alone */
    }
    pass_through_page(plain);
    pass_through_page(odd);
    for (int32_t side = 0; side < 2; side++) {
        for (int32_t e = 0; e < KEYS * DIM; e++) {
            const int32_t row = e / DIM;
            const int32_t d = e % DIM;
            const bool of_k =
                side == 0 && ((d == 1 && row / 32 == 1) || (d == 2 && row / 32 == 2) ||
                              (d == 4 && row / 32 == 3) || (d == 0 && row < 32));
            const bool of_v = side == 1 && d < 32 && (row == 3 || row == 40 || row == 80);
            const float x = odd->values[side][row][d];
            assert_true(isfinite(x));
            if (!of_k && !of_v) {
                assert_true(x == plain->values[side][row][d]);
            }
        }
    }
    const kern_segment *g = segment_of(odd, 0);
    assert_int_equal(code_at(odd, 0, 3, 0), 0); /* NaN is the min of its group */
    assert_true(odd->values[0][3][0] ==
                base_f32_from_f16(u16_at(odd, g->minima_offset, pair_of(odd, 0, 3, 0))));
    assert_true(odd->values[0][40][1] > 6e4f && odd->values[0][80][2] == -65504.0f);
    assert_true(odd->values[0][100][4] == 0.0f);
    case_destroy(plain);
    case_destroy(odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_vector_of_kivi_gives_its_codes),
        cmocka_unit_test(pages_follow_the_formula_and_its_bound),
        cmocka_unit_test(ties_round_to_even),
        cmocka_unit_test(a_constant_group_has_codes_0),
        cmocka_unit_test(odd_values_reach_only_their_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
