#include "kernels/op_basis.h"

#include "tests/support/page_fixture.h"
#include "tests/support/parity.h"

static const int32_t four_bits[4] = {4, 4, 16, 16};

/* y[i] = sum_j H[i][j] signs[j] x[j] / sqrt(n), H[i][j] = (-1)^popcount(i & j). */
static void rotate_fp64(const kern_side *side, const double *x, bool inverse, double *y)
{
    for (int32_t s = 0; s < side->n_segments; s++) {
        const int32_t n = side->segments[s].n_dims;
        const int32_t d0 = side->segments[s].first_dim;
        for (int32_t i = 0; i < n; i++) {
            y[d0 + i] = 0.0;
            for (int32_t j = 0; j < n; j++) {
                const double h = __builtin_popcount((unsigned)(i & j)) % 2 == 0 ? 1.0 : -1.0;
                const double sign = (double)side->signs[d0 + (inverse ? i : j)];
                y[d0 + i] += h * sign * x[d0 + j] / sqrt((double)n);
            }
        }
    }
}

static void rotations_agree_with_fp64_and_undo_each_other(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(2);
    enum { T = 30, H = 4 };
    for (int32_t i = 0; i < 2 * 3; i++) {
        const int32_t dim = i % 2 == 0 ? 64 : 128;
        const int32_t n_segments = 1 << i / 2;
        const int64_t n = (int64_t)T * H * dim;
        page_fixture fx[2];
        page_fixture_init(&fx[0], dim, n_segments, four_bits, four_bits, true, 1);
        page_fixture_init(&fx[1], dim, n_segments, four_bits, four_bits, i != 2, 2);
        const kern_head_format formats[2] = {fx[0].format, fx[1].format};
        float *x = parity_normals(1, n, 1.0);
        for (int32_t v = 0; v < 2; v++) {
            float *y = parity_guarded(n);
            memcpy(y, x, (size_t)n * sizeof *y);
            kern_basis_args args = {.x = y,
                                    .formats = formats,
                                    .n_tokens = T,
                                    .n_heads = H,
                                    .n_kv_heads = 2,
                                    .head_dim = dim,
                                    .v_side = v == 1};
            CHECK_STATUS(kern_basis(ctx, &args), BASE_OK);
            for (int64_t row = 0; row < (int64_t)T * H; row++) {
                const kern_head_format *f = &formats[row % H / 2];
                const kern_side *side = v == 1 ? &f->v : &f->k;
                double in[128];
                double want[128];
                for (int32_t d = 0; d < dim; d++) {
                    in[d] = want[d] = (double)x[row * dim + d];
                }
                if (side->signs != NULL) {
                    rotate_fp64(side, in, false, want);
                }
                for (int32_t d = 0; d < dim; d++) {
                    parity_near((double)y[row * dim + d], want[d], side->signs == NULL ? 0.0 : 2e-6,
                                "x", row * dim + d);
                }
            }
            args.inverse = true;
            CHECK_STATUS(kern_basis(ctx, &args), BASE_OK);
            for (int64_t j = 0; j < n; j++) {
                parity_near((double)y[j], (double)x[j], 1e-6 * 8.0, "inverse", j);
            }
            parity_guarded_check(y, n);
            parity_guarded_free(y);
        }
        free(x);
    }
    kern_ctx_destroy(ctx);
}

static void the_inverse_is_the_transpose(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    page_fixture fx;
    page_fixture_init(&fx, 64, 2, four_bits, four_bits, true, 5);
    float *x = parity_normals(3, 64, 1.0);
    double in[64];
    double want[64];
    for (int32_t d = 0; d < 64; d++) {
        in[d] = (double)x[d];
    }
    rotate_fp64(&fx.format.v, in, true, want);
    const kern_basis_args args = {.x = x,
                                  .formats = &fx.format,
                                  .n_tokens = 1,
                                  .n_heads = 1,
                                  .n_kv_heads = 1,
                                  .head_dim = 64,
                                  .v_side = true,
                                  .inverse = true};
    CHECK_STATUS(kern_basis(ctx, &args), BASE_OK);
    for (int32_t d = 0; d < 64; d++) {
        parity_near((double)x[d], want[d], 2e-6, "x", d);
    }
    free(x);
    kern_ctx_destroy(ctx);
}

/* Entry (i, j) of the circulant of page.h for m parts. */
static double mixer(int32_t m, int32_t i, int32_t j)
{
    const int32_t at = (j - i + m) % m;
    switch (m) {
    case 1: return 1.0;
    case 3: return (at == 0 ? 1.0 : 0.0) - 2.0 / 3;
    case 5: return (at == 0 ? 1.0 : 0.0) - 2.0 / 5;
    default: break;
    }
    const double b = (sqrt(8.0) - 1.0) / 7.0; /* 7: (I + Legendre's circulant + b) / sqrt(8) */
    const bool plus = at == 0 || at == 1 || at == 2 || at == 4;
    return ((plus ? 1.0 : -1.0) + b) / sqrt(8.0);
}

/* Row i, column j of the rotation of n = m * h dims. */
static double rotation(int32_t m, int32_t h, const float *signs, int32_t i, int32_t j)
{
    const double sign = __builtin_popcount((unsigned)(i % h & j % h)) % 2 == 0 ? 1.0 : -1.0;
    return mixer(m, i / h, j / h) * sign * (double)signs[j] / sqrt((double)h);
}

/* Segments of 3, 5 and 7 parts over dims in another order: forward is the matrix of page.h, which is
 * orthogonal, and inverse undoes it. */
static void ordered_sides_of_odd_groups_agree_with_fp64(void **state)
{
    (void)state;
    enum { T = 9, D = 128 };
    static const struct {
        int32_t n_dims;
        int32_t m;
    } groups[][2] = {{{16, 1}, {112, 7}}, {{80, 5}, {48, 3}}, {{96, 3}, {32, 1}}};
    kern_ctx *ctx = parity_ctx(1);
    uint16_t order[D];
    for (int32_t j = 0; j < D; j++) {
        order[j] = (uint16_t)(j * 37 % D);
    }
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
        page_fixture fx;
        page_fixture_init(&fx, D, 2, four_bits, four_bits, true, 4 + g);
        fx.format.k.order = order;
        fx.format.k.segments[0].n_dims = groups[g][0].n_dims;
        fx.format.k.segments[1].first_dim = groups[g][0].n_dims;
        fx.format.k.segments[1].n_dims = groups[g][1].n_dims;
        float *x = parity_normals(6, (int64_t)T * D, 1.0);
        float *y = parity_guarded((int64_t)T * D);
        memcpy(y, x, T * D * sizeof *y);
        kern_basis_args args = {.x = y,
                                .formats = &fx.format,
                                .n_tokens = T,
                                .n_heads = 1,
                                .n_kv_heads = 1,
                                .head_dim = D};
        CHECK_STATUS(kern_basis(ctx, &args), BASE_OK);
        for (int32_t i = 0; i < T * D; i++) {
            const kern_segment *s = &fx.format.k.segments[i % D >= groups[g][0].n_dims];
            const int32_t m = groups[g][s->first_dim != 0].m;
            double want = 0.0;
            for (int32_t j = 0; j < s->n_dims; j++) {
                want += rotation(m, s->n_dims / m, fx.signs[0] + s->first_dim, i % D - s->first_dim,
                                 j) *
                        (double)x[i / D * D + order[s->first_dim + j]];
            }
            parity_near((double)y[i], want, 2e-6, "x", i);
        }
        args.inverse = true;
        CHECK_STATUS(kern_basis(ctx, &args), BASE_OK);
        for (int32_t i = 0; i < T * D; i++) {
            parity_near((double)y[i], (double)x[i], 1e-6 * 8.0, "inverse", i);
        }
        parity_guarded_check(y, T * D);
        parity_guarded_free(y);
        free(x);
    }
    kern_ctx_destroy(ctx);
}

/* Where K has query_signs, they count both ways, and signs do not. */
static void query_signs_take_the_place_of_signs(void **state)
{
    (void)state;
    enum { T = 5, D = 128 };
    kern_ctx *ctx = parity_ctx(1);
    page_fixture own;
    page_fixture other;
    page_fixture_init(&own, D, 2, four_bits, four_bits, true, 7);
    page_fixture_init(&other, D, 2, four_bits, four_bits, true, 8);
    own.format.k.query_signs = other.signs[0];
    for (int32_t d = 0; d < D; d++) {
        other.signs[0][d] *= 0.75f + (float)d / D;
    }
    for (int32_t inverse = 0; inverse < 2; inverse++) {
        float *x[2] = {parity_normals(9, T * D, 1.0), parity_normals(9, T * D, 1.0)};
        for (int32_t i = 0; i < 2; i++) {
            const kern_basis_args args = {.x = x[i],
                                          .formats = i == 0 ? &own.format : &other.format,
                                          .n_tokens = T,
                                          .n_heads = 1,
                                          .n_kv_heads = 1,
                                          .head_dim = D,
                                          .inverse = inverse == 1};
            CHECK_STATUS(kern_basis(ctx, &args), BASE_OK);
        }
        assert_memory_equal(x[0], x[1], T * D * sizeof *x[0]);
        free(x[0]);
        free(x[1]);
    }
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    page_fixture fx;
    page_fixture_init(&fx, 64, 1, four_bits, four_bits, true, 1);
    float *x = parity_guarded(2 * 64);
    kern_basis_args good = {.x = x,
                            .formats = &fx.format,
                            .n_tokens = 1,
                            .n_heads = 2,
                            .n_kv_heads = 1,
                            .head_dim = 64};
    PARITY_REFUSED(kern_basis, ctx, good, head_dim, 32);
    PARITY_REFUSED(kern_basis, ctx, good, head_dim, 128);
    PARITY_REFUSED(kern_basis, ctx, good, n_tokens, -1);
    PARITY_REFUSED(kern_basis, ctx, good, n_heads, 0);
    PARITY_REFUSED(kern_basis, ctx, good, n_kv_heads, 0);
    kern_head_format two[2] = {fx.format, fx.format};
    PARITY_REFUSED(
        kern_basis, ctx,
        ((kern_basis_args){
            .x = x, .formats = two, .n_tokens = 1, .n_heads = 3, .n_kv_heads = 2, .head_dim = 64}),
        inverse, false); /* 3 heads over 2 */
    page_fixture wide;   /* rotated segments have 1, 3, 5 or 7 times a power of two dims */
    page_fixture_init(&wide, 128, 2, four_bits, four_bits, true, 1);
    wide.format.k.segments[0].n_dims = 72;
    wide.format.k.segments[1].first_dim = 72;
    wide.format.k.segments[1].n_dims = 56;
    good.head_dim = 128;
    PARITY_REFUSED(kern_basis, ctx, good, formats, &wide.format);
    CHECK_ERROR_NAMES("rotated");
    good.head_dim = 64;
    uint16_t order[64] = {1, 1};
    two[0] = fx.format;
    two[0].k.order = order;
    PARITY_REFUSED(kern_basis, ctx, good, formats, two);
    CHECK_ERROR_NAMES("no permutation of 64 dims");
    order[0] = 64;
    PARITY_REFUSED(kern_basis, ctx, good, formats, two);
    good.n_tokens = 0;
    CHECK_STATUS(kern_basis(ctx, &good), BASE_OK);
    parity_guarded_untouched(x, 2 * 64);
    parity_guarded_free(x);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotations_agree_with_fp64_and_undo_each_other),
        cmocka_unit_test(the_inverse_is_the_transpose),
        cmocka_unit_test(ordered_sides_of_odd_groups_agree_with_fp64),
        cmocka_unit_test(query_signs_take_the_place_of_signs),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
