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
        inverse, false);     /* 3 heads over 2 */
    two[0].k.n_segments = 2; /* rotated segments have a power of two dims */
    two[0].k.segments[0].n_dims = 24;
    two[0].k.segments[1] = two[0].k.segments[0];
    two[0].k.segments[1].first_dim = 24;
    two[0].k.segments[1].n_dims = 40;
    PARITY_REFUSED(kern_basis, ctx, good, formats, two);
    CHECK_ERROR_NAMES("rotated");
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
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
