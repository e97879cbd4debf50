#include "kernels/op_gather.h"

#include "tests/support/parity.h"

static void rows_are_copied_exactly_in_any_order_and_repeated(void **state)
{
    (void)state;
    enum { X_ROWS = 5, ROWS = 7 };
    kern_ctx *ctx = parity_ctx(1);
    static const int32_t widths[] = {1, 7, 8, 259};
    const int32_t rows[ROWS] = {4, 0, 2, 2, 4, 1, 4};
    for (size_t k = 0; k < sizeof widths / sizeof widths[0]; k++) {
        const int32_t width = widths[k];
        float *x = parity_normals(k, (int64_t)X_ROWS * width, 1.0);
        x[4 * width] = -0.0f;
        x[2 * width] = NAN;
        x[width] = -INFINITY;
        float *y = parity_guarded((int64_t)ROWS * width);
        const kern_gather_args args = {
            .x = x, .rows = rows, .y = y, .n_rows = ROWS, .n_x_rows = X_ROWS, .width = width};
        CHECK_STATUS(kern_gather(ctx, &args), BASE_OK);
        for (int32_t j = 0; j < ROWS * width; j++) {
            const float want = x[rows[j / width] * width + j % width];
            assert_int_equal(base_f32_bits(y[j]), base_f32_bits(want));
        }
        parity_guarded_check(y, (int64_t)ROWS * width);
        parity_guarded_free(y);
        free(x);
    }
    kern_ctx_destroy(ctx);
}

static void broken_limits_are_refused(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    const float x[6] = {0};
    int32_t rows[2] = {0, 2};
    float *y = parity_guarded(4);
    kern_gather_args good = {.x = x, .rows = rows, .y = y, .n_rows = 2, .n_x_rows = 3, .width = 2};
    PARITY_REFUSED(kern_gather, ctx, good, n_rows, -1);
    PARITY_REFUSED(kern_gather, ctx, good, width, 0);
    PARITY_REFUSED(kern_gather, ctx, good, n_x_rows, 0);
    PARITY_REFUSED(kern_gather, ctx, good, n_x_rows, 2);
    CHECK_ERROR_NAMES("rows[1] is 2, allowed 0..1");
    rows[1] = -1;
    CHECK_STATUS(kern_gather(ctx, &good), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("rows[1] is -1");
    good.n_rows = 0;
    CHECK_STATUS(kern_gather(ctx, &good), BASE_OK);
    parity_guarded_untouched(y, 4);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_copied_exactly_in_any_order_and_repeated),
        cmocka_unit_test(broken_limits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
