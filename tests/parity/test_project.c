#include "kernels/op_project.h"

#include "tests/support/parity.h"

enum { M = 11, K = 40, PARTS = KERN_PROJECT_PARTS };

static const int32_t widths[PARTS] = {23, 8, 1};

/* The ops that op_project.h names, through their front doors. */
static void one_after_the_other(kern_ctx *ctx, const kern_project_args *a, float *h)
{
    const kern_rmsnorm_args norm = {.x = a->x,
                                    .weight = a->norm,
                                    .y = h,
                                    .rows = a->m,
                                    .cols = a->k,
                                    .eps = a->eps,
                                    .dtype = a->norm_dtype};
    CHECK_STATUS(kern_rmsnorm(ctx, &norm), BASE_OK);
    for (int32_t i = 0; i < a->n_parts; i++) {
        const kern_project_part *p = &a->parts[i];
        const kern_gemm_args product = {.x = h,
                                        .w = p->w,
                                        .y = p->y,
                                        .m = a->m,
                                        .n = p->n,
                                        .k = a->k,
                                        .x_stride = a->k,
                                        .y_stride = p->n,
                                        .dtype = p->dtype};
        const kern_bias_args bias = {
            .x = p->y, .bias = p->bias, .rows = a->m, .cols = p->n, .dtype = p->bias_dtype};
        CHECK_STATUS(kern_gemm(ctx, &product), BASE_OK);
        if (p->bias != NULL) {
            CHECK_STATUS(kern_bias(ctx, &bias), BASE_OK);
        }
    }
}

static void it_is_its_ops_bit_for_bit(void **state)
{
    static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};
    (void)state;
    for (uint32_t i = 0; i < 3 * 2 * PARTS; i++) {
        const base_dtype t = dtypes[i % 3];
        const bool in_place = i / 3 % 2 == 1;
        kern_ctx *ctx = parity_ctx(2);
        float *x = parity_normals(1, M * K, 3.0);
        float *norm32 = parity_normals(2, K, 1.0);
        void *norm = parity_elems(norm32, K, dtypes[(i + 1) % 3]);
        float *h = in_place ? x : parity_memory(M * K, sizeof *h);
        float *other = parity_memory(M * K, sizeof *other);
        float *w32[PARTS];
        void *w[PARTS];
        float *want[PARTS];
        float *y[PARTS];
        kern_project_args a = {.x = x,
                               .norm = norm,
                               .h = other,
                               .n_parts = 1 + (int32_t)i / 6,
                               .m = M,
                               .k = K,
                               .eps = 1e-5f,
                               .norm_dtype = dtypes[(i + 1) % 3]};
        for (int32_t p = 0; p < PARTS; p++) {
            w32[p] = parity_normals(3 + (uint64_t)p, (int64_t)widths[p] * K, 1.0);
            w[p] = parity_elems(w32[p], (int64_t)widths[p] * K, t);
            want[p] = parity_memory((int64_t)M * widths[p], sizeof *want[p]);
            y[p] = parity_guarded((int64_t)M * widths[p]);
            a.parts[p] = (kern_project_part){.w = w[p],
                                             .bias = p == 1 ? NULL : w32[p],
                                             .y = want[p],
                                             .n = widths[p],
                                             .dtype = t,
                                             .bias_dtype = BASE_F32};
        }
        one_after_the_other(ctx, &a, other);
        a.h = h;
        for (int32_t p = 0; p < PARTS; p++) {
            a.parts[p].y = y[p];
        }
        CHECK_STATUS(kern_project(ctx, &a), BASE_OK);
        for (int32_t p = 0; p < PARTS; p++) {
            if (p < a.n_parts) {
                assert_memory_equal(y[p], want[p], (size_t)M * (size_t)widths[p] * sizeof *y[p]);
                parity_guarded_check(y[p], (int64_t)M * widths[p]);
            } else {
                parity_guarded_untouched(y[p], (int64_t)M * widths[p]);
            }
            parity_guarded_free(y[p]);
            free(want[p]);
            free(w[p]);
            free(w32[p]);
        }
        if (!in_place) {
            free(h);
        }
        free(other);
        free(norm);
        free(norm32);
        free(x);
        kern_ctx_destroy(ctx);
    }
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    float x[4] = {0};
    float *y = parity_guarded(2);
    kern_project_args good = {.x = x,
                              .norm = x,
                              .h = x,
                              .parts = {{.w = x, .y = y, .n = 2}},
                              .n_parts = 1,
                              .m = 0,
                              .k = 2};
    CHECK_STATUS(kern_project(ctx, &good), BASE_OK);
    PARITY_REFUSED(kern_project, ctx, good, m, -1);
    good.m = 1;
    PARITY_REFUSED(kern_project, ctx, good, k, 0);
    PARITY_REFUSED(kern_project, ctx, good, n_parts, 0);
    PARITY_REFUSED(kern_project, ctx, good, n_parts, PARTS + 1);
    PARITY_REFUSED(kern_project, ctx, good, n_parts, 2); /* of no rows */
    PARITY_REFUSED(kern_project, ctx, good, parts[0].n, -1);
    parity_guarded_untouched(y, 2);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_its_ops_bit_for_bit),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
