#include "kernels/op_swiglu.h"

#include "tests/support/parity.h"

static double exact(double g, double u)
{
    return g / (1.0 + exp(-g)) * u;
}

static void check(kern_ctx *ctx, const float *gate, const float *up, int64_t n, float *y)
{
    const kern_swiglu_args args = {
        .gate = gate, .up = up, .y = y, .n_tokens = 1, .width = (int32_t)n};
    float *g = parity_memory(n, sizeof *g); /* y may be gate or up */
    float *u = parity_memory(n, sizeof *u);
    memcpy(g, gate, (size_t)n * sizeof *g);
    memcpy(u, up, (size_t)n * sizeof *u);
    CHECK_STATUS(kern_swiglu(ctx, &args), BASE_OK);
    for (int64_t i = 0; i < n; i++) {
        const double want = exact((double)g[i], (double)u[i]);
        /* below the normal floats the distance between neighbours is 1.4e-45 */
        parity_near((double)y[i], want, 1e-6 * fabs(want) + 1.5e-45, "y", i);
    }
    free(g);
    free(u);
}

/* From one end of exp to the other, in steps that hit no special value. */
static void a_sweep_of_gates_agrees_with_fp64(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    enum { N = 30011 };
    float *gate = parity_memory(N, sizeof *gate);
    float *up = parity_memory(N, sizeof *up);
    float *y = parity_guarded(N);
    for (int32_t i = 0; i < N; i++) {
        gate[i] = (float)(i - N / 2) * 0.0101f; /* -151 .. 151 */
        up[i] = i % 2 == 0 ? 1.0f : -3.7f;
    }
    check(ctx, gate, up, N, y);
    parity_guarded_check(y, N);
    free(gate);
    free(up);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

static void output_may_lie_on_either_input(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(3);
    static const int32_t sizes[] = {1, 7, 8, 9, 100003};
    for (size_t i = 0; i < 5; i++) {
        float *gate = parity_normals(1, sizes[i], 4.0);
        float *up = parity_normals(2, sizes[i], 1.0);
        check(ctx, gate, up, sizes[i], up);
        check(ctx, gate, up, sizes[i], gate);
        free(gate);
        free(up);
    }
    kern_ctx_destroy(ctx);
}

static void zero_infinity_and_nan_follow_the_formula(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const float gate[16] = {0.0f, INFINITY, NAN, 1.0f, -0.0f, 300.0f, -300.0f, 2.0f, 0.0f, NAN};
    const float up[16] = {5.0f, 2.0f, 1.0f, NAN, 1.0f, 1.0f, 1.0f, INFINITY, 1.0f, 1.0f};
    float y[16];
    const kern_swiglu_args args = {.gate = gate, .up = up, .y = y, .n_tokens = 2, .width = 5};
    CHECK_STATUS(kern_swiglu(ctx, &args), BASE_OK);
    for (int32_t i = 0; i < 10; i++) {
        parity_near((double)y[i], exact((double)gate[i], (double)up[i]), 1e-4, "y", i);
    }
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const float x[4] = {0};
    float *y = parity_guarded(4);
    kern_swiglu_args good = {.gate = x, .up = x, .y = y, .n_tokens = 0, .width = 4};
    CHECK_STATUS(kern_swiglu(ctx, &good), BASE_OK);
    PARITY_REFUSED(kern_swiglu, ctx, good, n_tokens, -1);
    good.n_tokens = 1;
    PARITY_REFUSED(kern_swiglu, ctx, good, width, 0);
    parity_guarded_untouched(y, 4);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sweep_of_gates_agrees_with_fp64),
        cmocka_unit_test(output_may_lie_on_either_input),
        cmocka_unit_test(zero_infinity_and_nan_follow_the_formula),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
