/* What a page loses: K and V through the page writer and back, against the published distortion of
 * TurboQuant-MSE with norm correction, and byte by byte where the codes are known. */
#include "kvshard/codebook.h"
#include "kvshard/format.h"

#include "base/half.h"
#include "base/random.h"
#include "kernels/kern.h"
#include "tests/support/test.h"

#include <math.h>
#include <stdlib.h>

#define D        128
#define N_BLOCKS 16 /* 2048 vectors */
#define T        KERN_BLOCK_TOKENS

static int make_ctx(void **state)
{
    kern_ctx *ctx = NULL;
    CHECK_STATUS(kern_ctx_create_cpu(1, &base_heap, &ctx), BASE_OK);
    *state = ctx;
    return 0;
}

static int end_ctx(void **state)
{
    kern_ctx_destroy(*state);
    return 0;
}

static void pack_rows(kern_ctx *ctx, const kern_head_format *format, uint16_t *rows, uint8_t *page)
{
    const kern_open open = {.rows = rows};
    const kern_pack pack = {0};
    const kern_pack_args args = {.packs = &pack,
                                 .opens = &open,
                                 .formats = format,
                                 .pages = page,
                                 .page_stride = format->head_page_bytes,
                                 .n_packs = 1,
                                 .n_opens = 1,
                                 .n_pages = 1,
                                 .n_kv_heads = 1};
    CHECK_STATUS(kern_pack_pages(ctx, &args), BASE_OK);
}

/* Relative squared error, mean over vectors. */
typedef struct errors {
    double end_to_end; /* |x - x'|^2 / |x|^2 */
    double of_rows;    /* the part that bf16 rows lose before the page writer sees them */
    double of_page;    /* decoded page against the rows it was made from */
} errors;

static double error_of(const float *want, const float *got)
{
    double sum = 0.0;
    for (int32_t t = 0; t < T; t++) {
        double err = 0.0;
        double norm = 0.0;
        for (int32_t d = 0; d < D; d++) {
            const double diff = (double)want[t * D + d] - (double)got[t * D + d];
            err += diff * diff;
            norm += (double)want[t * D + d] * (double)want[t * D + d];
        }
        sum += err / norm;
    }
    return sum / T;
}

static void turn(kern_ctx *ctx, const kern_head_format *format, int32_t side, bool inverse,
                 float *x)
{
    const kern_basis_args args = {.x = x,
                                  .formats = format,
                                  .n_tokens = T,
                                  .n_heads = 1,
                                  .n_kv_heads = 1,
                                  .head_dim = D,
                                  .v_side = side == 1,
                                  .inverse = inverse};
    CHECK_STATUS(kern_basis(ctx, &args), BASE_OK);
}

/* Gaussian vectors through append, pack and decode. */
static errors measure(kern_ctx *ctx, const kern_head_format *format, int32_t side)
{
    static float x[2][T * D];
    static float turned[T * D];
    static float from_rows[T * D];
    static float from_page[T * D];
    static uint16_t rows[2 * T * D];
    errors sum = {0};
    int64_t positions[T];
    int32_t dest[T];
    uint8_t *page = malloc((size_t)format->head_page_bytes);
    assert_non_null(page);

    for (int32_t block = 0; block < N_BLOCKS; block++) {
        for (int32_t t = 0; t < T; t++) {
            positions[t] = block * T + t;
            dest[t] = 0;
        }
        for (int32_t i = 0; i < T * D; i++) {
            x[0][i] = (float)base_random_normal(5, 0, (uint64_t)(block * T * D + i));
            x[1][i] = (float)base_random_normal(5, 1, (uint64_t)(block * T * D + i));
        }
        const kern_open open = {.block = block, .rows = rows};
        const kern_append_args args = {.k = x[0],
                                       .v = x[1],
                                       .positions = positions,
                                       .dest = dest,
                                       .opens = &open,
                                       .formats = format,
                                       .n_tokens = T,
                                       .n_kv_heads = 1,
                                       .head_dim = D,
                                       .n_opens = 1};
        CHECK_STATUS(kern_append(ctx, &args), BASE_OK);
        pack_rows(ctx, format, rows, page);
        kern_page_decode(format, page, side, from_page);
        for (int32_t i = 0; i < T * D; i++) {
            from_rows[i] = base_f32_from_bf16(rows[side * T * D + i]);
        }
        memcpy(turned, x[side], sizeof turned);
        turn(ctx, format, side, false, turned);
        sum.of_rows += error_of(turned, from_rows) / N_BLOCKS;
        sum.of_page += error_of(from_rows, from_page) / N_BLOCKS;
        turn(ctx, format, side, true, from_page);
        sum.end_to_end += error_of(x[side], from_page) / N_BLOCKS;
    }
    free(page);
    return sum;
}

/* E |x - x'|^2 / |x|^2 at d = 128 with norm correction, and half of the last digit printed. */
static const struct {
    double error;
    double half_digit;
} published[] = {
    {0.401, 5e-4},   {0.1187, 5e-5},  {0.0338, 5e-5},   {0.00915, 5e-6},
    {0.00239, 5e-6}, {0.00062, 5e-6}, {0.000156, 5e-7}, {0.000039, 5e-7},
};

/* The quantiser alone is within 2 % of the published numbers.  End to end, bf16 rows add 2.8e-6 (they
 * keep 8 bits of a value), which is 7 % of the error at 8 bits: that part is measured, and the sum has
 * to come out, because the two errors are not correlated. */
static void check_errors(const errors *e, int32_t bits)
{
    const double want = published[bits - 1].error;
    const double tolerance = 0.02 * want + published[bits - 1].half_digit;
    assert_true(fabs(e->of_page - want) <= tolerance);
    assert_true(fabs(e->end_to_end - (want + e->of_rows)) <= tolerance);
    assert_true(e->of_rows > 1e-6 && e->of_rows < 4e-6);
}

static void pages_lose_what_turboquant_says(void **state)
{
    for (int32_t bits = 2; bits <= 8; bits++) {
        const kv_policy policy = {.kind = KV_POLICY_TQ, .k_bits = bits, .v_bits = bits};
        const kv_shape shape = {1, 1, D};
        kv_format *format = NULL;
        CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
        for (int32_t side = 0; side < 2; side++) {
            const errors e = measure(*state, format->heads, side);
            check_errors(&e, bits);
        }
        kv_format_destroy(format);
    }
}

static void bf16_pages_lose_nothing_more_than_their_rows(void **state)
{
    const kv_policy policy = {.kind = KV_POLICY_BF16, .k_bits = 16, .v_bits = 16};
    const kv_shape shape = {1, 1, D};
    kv_format *format = NULL;
    CHECK_STATUS(kv_format_create(&policy, &shape, &base_heap, &format), BASE_OK);
    for (int32_t side = 0; side < 2; side++) {
        const errors e = measure(*state, format->heads, side);
        assert_true(e.of_page == 0.0);
        assert_true(e.end_to_end == e.of_rows);
    }
    kv_format_destroy(format);
}

/* A format of one head of 64 dims that no policy makes: the given codebook on K and on V. */
static kern_head_format plain_format(int32_t bits, const float *centroids, const float *thresholds)
{
    const int32_t codes_bytes = T * 64 * bits / 8;
    const kern_segment k = {.bits = bits,
                            .n_dims = 64,
                            .norms_offset = codes_bytes,
                            .centroids = centroids,
                            .thresholds = thresholds};
    kern_segment v = k;
    v.codes_offset = codes_bytes + 2 * T;
    v.norms_offset = 2 * codes_bytes + 2 * T;
    return (kern_head_format){.head_dim = 64,
                              .head_page_bytes = 2 * codes_bytes + 4 * T,
                              .k = {.n_segments = 1, .segments = {k}},
                              .v = {.n_segments = 1, .segments = {v}}};
}

static void one_bit_pages_lose_what_turboquant_says(void **state)
{
    const double c = sqrt(2.0 / 3.14159265358979) / sqrt((double)D);
    const float centroids[] = {(float)-c, (float)c};
    const float thresholds[] = {0.0f};
    kern_head_format format = plain_format(1, centroids, thresholds);
    format.head_dim = D;
    format.k.segments[0].n_dims = D;
    format.v.segments[0].n_dims = D;
    format.k.segments[0].norms_offset = T * D / 8;
    format.v.segments[0].codes_offset = T * D / 8 + 2 * T;
    format.v.segments[0].norms_offset = 2 * T * D / 8 + 2 * T;
    format.head_page_bytes = 2 * T * D / 8 + 4 * T;
    const errors e = measure(*state, &format, 0);
    check_errors(&e, 1);
}

/* (3, 4) at 2 bits with levels +-0.453, +-1.51: codes 2, 3 and (1.43674, 4.78913) come back.  A segment
 * has at least 8 dims, so the pair stands there 32 times, which changes the norm only. */
static void a_pair_comes_back_as_the_reference_says(void **state)
{
    const float centroids[] = {-1.51f / 8, -0.453f / 8, 0.453f / 8, 1.51f / 8};
    const float thresholds[] = {-0.9815f / 8, 0.0f, 0.9815f / 8};
    const kern_head_format format = plain_format(2, centroids, thresholds);
    uint16_t *rows = calloc(2 * T * 64, sizeof *rows);
    uint8_t *page = calloc(1, (size_t)format.head_page_bytes);
    float *values = calloc(T * 64, sizeof *values);
    assert_true(rows != NULL && page != NULL && values != NULL);
    for (int32_t i = 0; i < T * 64; i++) {
        rows[i] = base_bf16_from_f32(i % 2 == 0 ? 3.0f : 4.0f);
    }
    pack_rows(*state, &format, rows, page);
    assert_int_equal(page[0], 0xee); /* 2, 3, 2, 3 from the low bits up */
    uint16_t norm;
    memcpy(&norm, page + format.k.segments[0].norms_offset, sizeof norm);
    /* fp16 keeps 11 bits */
    assert_true(fabs(base_f32_from_f16(norm) / (4.485334 * sqrt(32.0)) - 1.0) <= 0x1p-11);
    kern_page_decode(&format, page, 0, values);
    assert_true(fabs(values[0] / 1.43674 - 1.0) <= 0x1p-11 + 1e-5);
    assert_true(fabs(values[1] / 4.78913 - 1.0) <= 0x1p-11 + 1e-5);
    free(values);
    free(page);
    free(rows);
}

/* The row's values are code - (levels - 1) / 2, and the codebook is made for its norm. */
static void codes_are_a_little_endian_bit_stream(void **state)
{
    static const struct {
        int32_t bits;
        uint8_t codes[8]; /* repeated along the row */
        uint8_t bytes[8]; /* bits of them, repeated */
    } rows_of[] = {
        {1, {1, 0, 0, 0, 0, 0, 0, 1}, {0x81}},
        {2, {0, 1, 2, 3, 0, 1, 2, 3}, {0xe4, 0xe4}},
        {3, {0, 1, 2, 3, 4, 5, 6, 7}, {0x88, 0xc6, 0xfa}},
        {4, {1, 2, 1, 2, 1, 2, 1, 2}, {0x21, 0x21, 0x21, 0x21}},
        {5, {31, 0, 0, 0, 0, 0, 0, 16}, {0x1f, 0, 0, 0, 0x80}},
        {8, {0, 1, 127, 128, 254, 255, 3, 9}, {0, 1, 127, 128, 254, 255, 3, 9}},
    };
    for (size_t r = 0; r < sizeof rows_of / sizeof rows_of[0]; r++) {
        const int32_t bits = rows_of[r].bits;
        const int32_t n = 1 << bits;
        float centroids[256];
        float thresholds[256];
        double norm = 0.0;
        for (int32_t i = 0; i < 64; i++) {
            const double x = rows_of[r].codes[i % 8] - 0.5 * (n - 1);
            norm += x * x;
        }
        norm = sqrt(norm);
        for (int32_t i = 0; i < n; i++) {
            centroids[i] = (float)((i - 0.5 * (n - 1)) / norm);
            thresholds[i] =
                (float)((i + 0.5 - 0.5 * (n - 1)) / norm); /* the last one is not used */
        }
        const kern_head_format format = plain_format(bits, centroids, thresholds);
        uint16_t *rows = calloc(2 * T * 64, sizeof *rows);
        uint8_t *page = calloc(1, (size_t)format.head_page_bytes);
        assert_true(rows != NULL && page != NULL);
        for (int32_t i = 0; i < 2 * T * 64; i++) {
            rows[i] = base_bf16_from_f32((float)(rows_of[r].codes[i % 8] - 0.5 * (n - 1)));
        }
        pack_rows(*state, &format, rows, page);
        for (int32_t i = 0; i < T * 64 * bits / 8; i++) {
            assert_int_equal(page[i], rows_of[r].bytes[i % bits]);
            assert_int_equal(page[format.v.segments[0].codes_offset + i],
                             rows_of[r].bytes[i % bits]);
        }
        free(page);
        free(rows);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_lose_what_turboquant_says),
        cmocka_unit_test(one_bit_pages_lose_what_turboquant_says),
        cmocka_unit_test(bf16_pages_lose_nothing_more_than_their_rows),
        cmocka_unit_test(a_pair_comes_back_as_the_reference_says),
        cmocka_unit_test(codes_are_a_little_endian_bit_stream),
    };
    return cmocka_run_group_tests(tests, make_ctx, end_ctx);
}
