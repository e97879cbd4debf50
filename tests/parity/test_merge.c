#include "kernels/op_merge.h"

#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

enum { DIM = 5, ROWS = 3, RANKS = 4, STRIDE = ROWS * (DIM + 1) + 2 };

typedef struct shards {
    float data[RANKS * STRIDE];
} shards;

static shards random_shards(void)
{
    shards s;
    for (int32_t i = 0; i < RANKS * STRIDE; i++) {
        s.data[i] = (float)base_random_normal(PARITY_SEED, 1, (uint64_t)i);
    }
    return s;
}

static float *lse_of(shards *s, int32_t rank, int32_t row)
{
    return &s->data[rank * STRIDE + ROWS * DIM + row];
}

static kern_merge_args args_of(const shards *s, float *o, float *lse)
{
    return (kern_merge_args){.partials = s->data,
                             .rank_stride = STRIDE,
                             .o = o,
                             .lse = lse,
                             .n_ranks = RANKS,
                             .rows = ROWS,
                             .head_dim = DIM};
}

static bool same_bits(float a, float b)
{
    return base_f32_bits(a) == base_f32_bits(b);
}

static void one_live_rank_is_copied_exactly(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    shards s = random_shards();
    float *o = parity_guarded(ROWS * DIM);
    float *lse = parity_guarded(ROWS);
    for (int32_t r = 0; r < RANKS; r++) {
        for (int32_t row = 0; row < ROWS; row++) {
            if (r != 2) {
                *lse_of(&s, r, row) = -INFINITY;
                s.data[r * STRIDE + row * DIM] = NAN; /* adds nothing, whatever it holds */
            }
        }
    }
    const kern_merge_args args = args_of(&s, o, lse);
    CHECK_STATUS(kern_merge(ctx, &args), BASE_OK);
    assert_memory_equal(o, s.data + 2 * STRIDE, ROWS * DIM * sizeof *o);
    assert_memory_equal(lse, lse_of(&s, 2, 0), ROWS * sizeof *lse);
    parity_guarded_check(o, ROWS * DIM);
    parity_guarded_check(lse, ROWS);
    parity_guarded_free(o);
    parity_guarded_free(lse);
    kern_ctx_destroy(ctx);
}

static void no_live_rank_gives_zero_and_minus_infinity(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    shards s = random_shards();
    float o[ROWS * DIM];
    float lse[ROWS];
    for (int32_t i = 0; i < RANKS * ROWS; i++) {
        *lse_of(&s, i / ROWS, i % ROWS) = -INFINITY;
    }
    const kern_merge_args args = args_of(&s, o, lse);
    CHECK_STATUS(kern_merge(ctx, &args), BASE_OK);
    for (int32_t i = 0; i < ROWS * DIM; i++) {
        assert_true(same_bits(o[i], 0.0f));
        assert_true(lse[i / DIM] == -INFINITY);
    }
    kern_ctx_destroy(ctx);
}

static void random_ranks_agree_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    shards s = random_shards();
    float o[ROWS * DIM];
    float lse[ROWS];
    *lse_of(&s, 1, 0) = 80.0f; /* far above the others */
    *lse_of(&s, 1, 1) = -INFINITY;
    const kern_merge_args args = args_of(&s, o, lse);
    CHECK_STATUS(kern_merge(ctx, &args), BASE_OK);
    for (int32_t row = 0; row < ROWS; row++) {
        double sum = 0.0;
        for (int32_t r = 0; r < RANKS; r++) {
            sum += exp((double)*lse_of(&s, r, row));
        }
        parity_near((double)lse[row], log(sum), 1e-6 * (1.0 + fabs(log(sum))), "lse", row);
        for (int32_t d = 0; d < DIM; d++) {
            double want = 0.0;
            for (int32_t r = 0; r < RANKS; r++) {
                want += exp((double)*lse_of(&s, r, row)) / sum *
                        (double)s.data[r * STRIDE + row * DIM + d];
            }
            parity_near((double)o[row * DIM + d], want, 2e-6, "o", row * DIM + d);
        }
    }
    kern_ctx_destroy(ctx);
}

static void nan_of_a_contributing_rank_is_canonical(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    shards s = random_shards();
    float o[ROWS * DIM];
    float lse[ROWS];
    s.data[3 * STRIDE + 1] = base_bits_f32(0xffc12345u); /* o of row 0, dim 1 */
    *lse_of(&s, 0, 2) = base_bits_f32(0xffffffffu);
    const kern_merge_args args = args_of(&s, o, lse);
    CHECK_STATUS(kern_merge(ctx, &args), BASE_OK);
    const float canonical = base_bits_f32(0x7fc00000u);
    assert_true(same_bits(o[1], canonical));
    assert_true(!isnan(o[0]));
    assert_true(!isnan(lse[0]));
    for (int32_t d = 0; d < DIM; d++) {
        assert_true(!isnan(o[DIM + d]));
        assert_true(same_bits(o[2 * DIM + d], canonical));
    }
    assert_true(same_bits(lse[2], canonical));
    kern_ctx_destroy(ctx);
}

static void in_place_on_rank_zero_and_without_lse_gives_the_same_bits(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    shards s = random_shards();
    shards place = s;
    float o[ROWS * DIM];
    float lse[ROWS];
    kern_merge_args args = args_of(&s, o, lse);
    CHECK_STATUS(kern_merge(ctx, &args), BASE_OK);
    args = args_of(&place, place.data, NULL);
    CHECK_STATUS(kern_merge(ctx, &args), BASE_OK);
    assert_memory_equal(place.data, o, sizeof o);
    assert_memory_equal(place.data + ROWS * DIM, s.data + ROWS * DIM,
                        (RANKS * STRIDE - ROWS * DIM) * sizeof(float));
    kern_ctx_destroy(ctx);
}

/* With formats: what basis makes of the merged rows. */
static void formats_take_the_result_out_of_the_page_basis(void **state)
{
    enum { D = 64, HEADS = 4, N = 2 * HEADS, N_RANKS = 2, N_STRIDE = N * (D + 1) };
    static const int32_t bits[1] = {4};
    static page_fixture fx[2];
    kern_head_format formats[2];
    kern_ctx *ctx = parity_ctx(2);
    float *partials = parity_normals(1, N_RANKS * N_STRIDE, 1.0);
    float *want = parity_guarded(N * D);
    float *got = parity_guarded(N * D);
    (void)state;
    for (uint64_t h = 0; h < 2; h++) {
        page_fixture_init(&fx[h], D, 1, bits, bits, true, h);
        formats[h] = fx[h].format;
    }
    kern_merge_args a = {.partials = partials,
                         .rank_stride = N_STRIDE,
                         .o = want,
                         .n_ranks = N_RANKS,
                         .rows = N,
                         .head_dim = D};
    const kern_basis_args back = {.x = want,
                                  .formats = formats,
                                  .n_tokens = 2,
                                  .n_heads = HEADS,
                                  .n_kv_heads = 2,
                                  .head_dim = D,
                                  .v_side = true,
                                  .inverse = true};
    CHECK_STATUS(kern_merge(ctx, &a), BASE_OK);
    CHECK_STATUS(kern_basis(ctx, &back), BASE_OK);
    a.o = got;
    a.formats = formats;
    a.n_heads = HEADS;
    a.n_kv_heads = 2;
    CHECK_STATUS(kern_merge(ctx, &a), BASE_OK);
    assert_memory_equal(got, want, N * D * sizeof *got);
    parity_guarded_check(got, N * D);
    PARITY_REFUSED(kern_merge, ctx, a, n_heads, 3);
    PARITY_REFUSED(kern_merge, ctx, a, n_kv_heads, 3);
    PARITY_REFUSED(kern_merge, ctx, a, rows, N - 1);
    free(partials);
    parity_guarded_free(want);
    parity_guarded_free(got);
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const shards s = random_shards();
    float *o = parity_guarded(ROWS * DIM);
    kern_merge_args good = args_of(&s, o, NULL);
    PARITY_REFUSED(kern_merge, ctx, good, n_ranks, 0);
    PARITY_REFUSED(kern_merge, ctx, good, rows, -1);
    PARITY_REFUSED(kern_merge, ctx, good, head_dim, 0);
    PARITY_REFUSED(kern_merge, ctx, good, rank_stride, ROWS * (DIM + 1) - 1);
    good.rows = 0;
    CHECK_STATUS(kern_merge(ctx, &good), BASE_OK);
    parity_guarded_untouched(o, ROWS * DIM);
    parity_guarded_free(o);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_live_rank_is_copied_exactly),
        cmocka_unit_test(no_live_rank_gives_zero_and_minus_infinity),
        cmocka_unit_test(random_ranks_agree_with_fp64),
        cmocka_unit_test(nan_of_a_contributing_rank_is_canonical),
        cmocka_unit_test(in_place_on_rank_zero_and_without_lse_gives_the_same_bits),
        cmocka_unit_test(formats_take_the_result_out_of_the_page_basis),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
