#include "kernels/op_gated.h"

#include "tests/support/parity.h"

/* The ops that op_gated.h names, through their front doors. */
static void one_after_the_other(kern_ctx *ctx, const kern_gated_args *a, float *h, float *u,
                                float *y)
{
    const kern_project_args products = {
        .x = a->x,
        .norm = a->norm,
        .h = h,
        .parts = {{.w = a->gate, .y = y, .n = a->f, .dtype = a->gate_dtype},
                  {.w = a->up, .y = u, .n = a->f, .dtype = a->up_dtype}},
        .n_parts = 2,
        .m = a->m,
        .k = a->k,
        .eps = a->eps,
        .norm_dtype = a->norm_dtype};
    const kern_swiglu_args act = {.gate = y, .up = u, .y = y, .n_tokens = a->m, .width = a->f};
    CHECK_STATUS(kern_project(ctx, &products), BASE_OK);
    CHECK_STATUS(kern_swiglu(ctx, &act), BASE_OK);
}

static void it_is_its_ops_bit_for_bit(void **state)
{
    static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};
    static const int32_t shapes[][3] = {{1, 33, 64}, {3, 8, 40}, {12, 70, 7}};
    (void)state;
    for (uint32_t i = 0; i < 9; i++) {
        const int32_t m = shapes[i / 3][0];
        const int32_t f = shapes[i / 3][1];
        const int32_t k = shapes[i / 3][2];
        kern_ctx *ctx = parity_ctx(2);
        float *x = parity_normals(1, (int64_t)m * k, 2.0);
        float *gate32 = parity_normals(2, (int64_t)f * k, 1.0);
        float *up32 = parity_normals(3, (int64_t)f * k, 1.0);
        void *gate = parity_elems(gate32, (int64_t)f * k, dtypes[i % 3]);
        void *up = parity_elems(up32, (int64_t)f * k, dtypes[(i + 1) % 3]);
        float *h = parity_memory((int64_t)m * k, sizeof *h);
        float *room = parity_memory((int64_t)m * f, sizeof *room);
        float *want = parity_memory((int64_t)m * f, sizeof *want);
        float *y = parity_guarded((int64_t)m * f);
        const kern_gated_args a = {.x = x,
                                   .norm = up32,
                                   .h = h,
                                   .gate = gate,
                                   .up = up,
                                   .room = room,
                                   .y = y,
                                   .m = m,
                                   .f = f,
                                   .k = k,
                                   .eps = 1e-6f,
                                   .norm_dtype = BASE_F32,
                                   .gate_dtype = dtypes[i % 3],
                                   .up_dtype = dtypes[(i + 1) % 3]};
        one_after_the_other(ctx, &a, h, room, want);
        CHECK_STATUS(kern_gated(ctx, &a), BASE_OK);
        assert_memory_equal(y, want, (size_t)m * (size_t)f * sizeof *y);
        parity_guarded_check(y, (int64_t)m * f);
        parity_guarded_free(y);
        free(want);
        free(room);
        free(h);
        free(up);
        free(gate);
        free(up32);
        free(gate32);
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
    kern_gated_args good = {
        .x = x, .norm = x, .h = x, .gate = x, .up = x, .room = x, .y = y, .m = 0, .f = 2, .k = 2};
    CHECK_STATUS(kern_gated(ctx, &good), BASE_OK);
    PARITY_REFUSED(kern_gated, ctx, good, m, -1);
    good.m = 1;
    PARITY_REFUSED(kern_gated, ctx, good, f, 0);
    PARITY_REFUSED(kern_gated, ctx, good, k, 0);
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
