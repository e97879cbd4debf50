#include "kernels/op_pack.h"

#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

#define GUARD_BYTE 0xa5u

typedef struct pack_case { /* one block of one head, page 1 of 3 */
    page_fixture fx;
    uint16_t *rows;
    uint8_t *pages;
    kern_open open;
    kern_pack pack;
    kern_pack_args args;
} pack_case;

static pack_case *case_create(int32_t head_dim, int32_t n_segments, const int32_t *k_bits,
                              const int32_t *v_bits)
{
    pack_case *c = parity_memory(1, sizeof *c);
    page_fixture_init(&c->fx, head_dim, n_segments, k_bits, v_bits, false, 1);
    const int64_t n_rows = kern_open_elems(1, head_dim);
    const int32_t page_bytes = c->fx.format.head_page_bytes;
    float *x = parity_normals(4, n_rows, 1.0);
    c->rows = parity_elems(x, n_rows, BASE_BF16);
    free(x);
    c->pages = parity_memory(3LL * page_bytes, 1);
    memset(c->pages, (int)GUARD_BYTE, 3 * (size_t)page_bytes);
    c->open = (kern_open){.rows = c->rows};
    c->pack = (kern_pack){0, 1};
    c->args = (kern_pack_args){.packs = &c->pack,
                               .opens = &c->open,
                               .formats = &c->fx.format,
                               .pages = c->pages,
                               .page_stride = page_bytes,
                               .n_packs = 1,
                               .n_opens = 1,
                               .n_pages = 3,
                               .n_kv_heads = 1};
    return c;
}

static void case_destroy(pack_case *c)
{
    free(c->rows);
    free(c->pages);
    free(c);
}

static const uint8_t *page_of(const pack_case *c)
{
    return c->pages + c->args.page_stride;
}

static void pack(pack_case *c)
{
    kern_ctx *ctx = parity_ctx(2);
    CHECK_STATUS(kern_pack_pages(ctx, &c->args), BASE_OK);
    for (int64_t i = 0; i < c->args.page_stride; i++) {
        assert_int_equal(c->pages[i], GUARD_BYTE);
        assert_int_equal(c->pages[2 * c->args.page_stride + i], GUARD_BYTE);
    }
    kern_ctx_destroy(ctx);
}

/* Sets row 0 of K so that its codes are the given ones, over and over: each value is the level of
 * its code, and thresholds shrink by the row's norm, as the values will. */
static void set_codes(pack_case *c, const int32_t *codes, int32_t n_codes)
{
    const kern_segment *g = &c->fx.format.k.segments[0];
    float sum = 0.0f;
    for (int32_t d = 0; d < g->n_dims; d++) {
        const float x = g->centroids[codes[d % n_codes]];
        c->rows[d] = base_bf16_from_f32(x);
        sum += x * x;
    }
    for (int32_t i = 0; i < (1 << g->bits) - 1; i++) {
        c->fx.books[0].thresholds[i] /= sqrtf(sum);
    }
}

static void codes_are_a_little_endian_bit_stream(void **state)
{
    (void)state;
    static const struct {
        int32_t bits;
        int32_t n_codes;
        int32_t codes[8];
        uint8_t bytes[3];
    } cases[] = {
        {3, 8, {0, 1, 2, 3, 4, 5, 6, 7}, {0x88, 0xc6, 0xfa}},
        {2, 4, {0, 1, 2, 3}, {0xe4, 0xe4, 0xe4}},
        {4, 2, {1, 2}, {0x21, 0x21, 0x21}},
        {1, 8, {1, 0, 0, 0, 0, 0, 0, 1}, {0x81, 0x81, 0x81}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pack_case *c = case_create(64, 1, &cases[i].bits, &cases[i].bits);
        set_codes(c, cases[i].codes, cases[i].n_codes);
        pack(c);
        const uint8_t *codes = page_of(c) + c->fx.format.k.segments[0].codes_offset;
        for (int32_t j = 0; j < 3; j++) {
            assert_int_equal(codes[j], cases[i].bytes[j]);
        }
        case_destroy(c);
    }
}

static uint32_t code_at(const pack_case *c, const kern_segment *g, int64_t row, int32_t d)
{
    const int64_t bit = (row * g->n_dims + d) * g->bits;
    uint32_t code = 0;
    for (int32_t i = 0; i < g->bits; i++) {
        const uint8_t byte = page_of(c)[g->codes_offset + (bit + i) / 8];
        code |= (uint32_t)(byte >> ((bit + i) % 8) & 1u) << i;
    }
    return code;
}

static uint16_t norm_at(const pack_case *c, const kern_segment *g, int64_t row)
{
    uint16_t norm;
    memcpy(&norm, page_of(c) + g->norms_offset + row * 2, sizeof norm);
    return norm;
}

/* Codes and norms written out from the formula of the header, with plain loops. */
static void check_segment(const pack_case *c, const kern_segment *g, int32_t side)
{
    const int32_t dim = c->fx.format.head_dim;
    for (int32_t row = 0; row < KERN_BLOCK_TOKENS; row++) {
        const uint16_t *x = c->rows + (side * KERN_BLOCK_TOKENS + row) * dim + g->first_dim;
        float sum = 0.0f;
        float level_sum = 0.0f;
        for (int32_t d = 0; d < g->n_dims; d++) {
            sum += base_f32_from_bf16(x[d]) * base_f32_from_bf16(x[d]);
        }
        const float nu = sqrtf(sum);
        for (int32_t d = 0; d < g->n_dims; d++) {
            uint32_t code = 0;
            for (int32_t t = 0; t < (1 << g->bits) - 1; t++) {
                code += g->thresholds[t] < base_f32_from_bf16(x[d]) / nu;
            }
            assert_int_equal(code_at(c, g, row, d), code);
            level_sum += g->centroids[code] * g->centroids[code];
        }
        assert_int_equal(norm_at(c, g, row), base_f16_from_f32(nu / sqrtf(level_sum)));
    }
}

static void every_width_follows_the_formula_and_decodes_to_it(void **state)
{
    (void)state;
    for (int32_t bits = 1; bits <= 8; bits++) {
        const int32_t k_bits[2] = {bits, 9 - bits};
        const int32_t v_bits[2] = {16, bits};
        const int32_t dim = bits % 2 == 0 ? 64 : 128;
        pack_case *c = case_create(dim, 2, k_bits, v_bits);
        float *values = parity_guarded((int64_t)KERN_BLOCK_TOKENS * dim);
        pack(c);
        check_segment(c, &c->fx.format.k.segments[0], 0);
        check_segment(c, &c->fx.format.k.segments[1], 0);
        check_segment(c, &c->fx.format.v.segments[1], 1);
        for (int32_t side = 0; side < 2; side++) {
            const kern_side *s = side == 0 ? &c->fx.format.k : &c->fx.format.v;
            kern_page_decode(&c->fx.format, page_of(c), side, values);
            for (int32_t i = 0; i < KERN_BLOCK_TOKENS * dim; i++) {
                const kern_segment *g = &s->segments[i % dim / (dim / 2)];
                const int32_t d = i % dim - g->first_dim;
                const float want =
                    g->bits == 16 ? base_f32_from_bf16(c->rows[side * KERN_BLOCK_TOKENS * dim + i])
                                  : base_f32_from_f16(norm_at(c, g, i / dim)) *
                                        g->centroids[code_at(c, g, i / dim, d)];
                assert_true(values[i] == want);
            }
            parity_guarded_check(values, (int64_t)KERN_BLOCK_TOKENS * dim);
        }
        parity_guarded_free(values);
        case_destroy(c);
    }
}

static void padding_is_zero(void **state)
{
    (void)state;
    const int32_t bits = 1;
    pack_case *c = case_create(64, 1, &bits, &bits);
    kern_head_format *f = &c->fx.format;
    f->v.segments[0].norms_offset += 16; /* a gap before the V norms, and one at the end */
    f->head_page_bytes += 128;
    c->args.page_stride += 128;
    free(c->pages);
    c->pages = parity_memory(3 * c->args.page_stride, 1);
    memset(c->pages, (int)GUARD_BYTE, 3 * (size_t)c->args.page_stride);
    c->args.pages = c->pages;
    pack(c);
    for (int32_t i = 0; i < 16; i++) {
        assert_int_equal(page_of(c)[f->v.segments[0].norms_offset - 16 + i], 0);
    }
    for (int32_t i = f->v.segments[0].norms_offset + 256; i < f->head_page_bytes; i++) {
        assert_int_equal(page_of(c)[i], 0);
    }
    case_destroy(c);
}

/* Row 0 is zero, 1 holds NaN, 2 infinity, 3 overflows fp16; row 4 is ordinary. */
static void odd_rows_have_stated_norms_and_leave_others_alone(void **state)
{
    (void)state;
    const int32_t bits = 3;
    pack_case *c = case_create(64, 1, &bits, &bits);
    const kern_segment *g = &c->fx.format.k.segments[0];
    pack(c);
    const uint16_t ordinary = norm_at(c, g, 4);
    memset(c->pages, (int)GUARD_BYTE, 3 * (size_t)c->args.page_stride);
    memset(c->rows, 0, 64 * sizeof *c->rows);
    c->rows[64 + 3] = 0x7fc0u;
    c->rows[2 * 64 + 3] = 0x7f80u;
    for (int32_t d = 0; d < 64; d++) {
        c->rows[3 * 64 + d] = base_bf16_from_f32(1e6f);
    }
    pack(c);
    assert_int_equal(norm_at(c, g, 0), 0);
    assert_int_equal(norm_at(c, g, 1), 0);
    assert_int_equal(norm_at(c, g, 2), 0x7bff);
    assert_int_equal(norm_at(c, g, 3), 0x7bff);
    assert_int_equal(norm_at(c, g, 4), ordinary);
    for (int32_t d = 0; d < 64; d++) {
        assert_int_equal(code_at(c, g, 0, d), 3); /* u = 0: thresholds 0..2 are below, 3 is 0 */
        assert_int_equal(code_at(c, g, 1, d), 3);
    }
    case_destroy(c);
}

/* Without norms behind it the last section may end with the page: nothing past it is read. */
static void codes_may_end_with_the_page(void **state)
{
    (void)state;
    const int32_t bits = 5;
    pack_case *c = case_create(128, 1, &bits, &bits);
    kern_head_format *f = &c->fx.format;
    f->v.segments[0].norms_offset = f->v.segments[0].codes_offset;
    f->v.segments[0].codes_offset += 256;
    assert_int_equal(f->v.segments[0].codes_offset + 128 * 128 * 5 / 8, f->head_page_bytes);
    c->args.n_pages = 2;
    uint8_t *exact = malloc(2 * (size_t)c->args.page_stride);
    assert_non_null(exact);
    free(c->pages);
    c->pages = exact;
    c->args.pages = exact;
    kern_ctx *ctx = parity_ctx(1);
    CHECK_STATUS(kern_pack_pages(ctx, &c->args), BASE_OK);
    float *values = parity_memory(128 * 128, sizeof *values);
    kern_page_decode(f, page_of(c), 1, values);
    const kern_segment *g = &f->v.segments[0];
    for (int32_t d = 0; d < 128; d++) {
        assert_true(values[127 * 128 + d] ==
                    base_f32_from_f16(norm_at(c, g, 127)) * g->centroids[code_at(c, g, 127, d)]);
    }
    free(values);
    case_destroy(c);
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const int32_t bits = 2;
    pack_case *c = case_create(64, 1, &bits, &bits);
    PARITY_REFUSED(kern_pack_pages, ctx, c->args, n_packs, -1);
    PARITY_REFUSED(kern_pack_pages, ctx, c->args, n_kv_heads, 0);
    PARITY_REFUSED(kern_pack_pages, ctx, c->args, n_opens, 0);
    PARITY_REFUSED(kern_pack_pages, ctx, c->args, n_pages, 1);
    PARITY_REFUSED(kern_pack_pages, ctx, c->args, page_stride, c->args.page_stride - 1);
    c->pack.open = -1;
    CHECK_STATUS(kern_pack_pages(ctx, &c->args), BASE_BAD_INPUT);
    c->pack = (kern_pack){0, -1};
    CHECK_STATUS(kern_pack_pages(ctx, &c->args), BASE_BAD_INPUT);
    c->fx.format.head_dim = 32;
    CHECK_STATUS(kern_pack_pages(ctx, &c->args), BASE_BAD_INPUT);
    for (int64_t i = 0; i < 3 * c->args.page_stride; i++) {
        assert_int_equal(c->pages[i], GUARD_BYTE);
    }
    case_destroy(c);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_a_little_endian_bit_stream),
        cmocka_unit_test(every_width_follows_the_formula_and_decodes_to_it),
        cmocka_unit_test(padding_is_zero),
        cmocka_unit_test(odd_rows_have_stated_norms_and_leave_others_alone),
        cmocka_unit_test(codes_may_end_with_the_page),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
