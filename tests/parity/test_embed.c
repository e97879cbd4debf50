#include "kernels/op_embed.h"

#include "tests/support/parity.h"

static void rows_are_copied_exactly(void **state)
{
    (void)state;
    kern_ctx *ctx = parity_ctx(1);
    static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};
    static const int32_t widths[] = {1, 7, 8, 259};
    const int32_t ids[] = {4, 0, 2, 4};
    for (size_t i = 0; i < 12; i++) {
        const int32_t width = widths[i / 3];
        const base_dtype dtype = dtypes[i % 3];
        float *values = parity_normals(1, 5 * width, 1.0);
        void *table = parity_elems(values, 5 * width, dtype);
        float *y = parity_guarded(4 * width);
        const kern_embed_args args = {.ids = ids,
                                      .table = table,
                                      .y = y,
                                      .n_tokens = 4,
                                      .n_vocab = 5,
                                      .width = width,
                                      .dtype = dtype};
        CHECK_STATUS(kern_embed(ctx, &args), BASE_OK);
        for (int32_t j = 0; j < 4 * width; j++) {
            const int64_t at = (int64_t)ids[j / width] * width + j % width;
            assert_true((double)y[j] == parity_elem(table, at, dtype));
        }
        parity_guarded_check(y, 4 * width);
        free(values);
        free(table);
        parity_guarded_free(y);
    }
    kern_ctx_destroy(ctx);
}

/* Rows of activations are looked up so too: those whose logits are asked for. */
static void an_f32_table_keeps_every_bit(void **state)
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
        const kern_embed_args args = {.ids = rows,
                                      .table = x,
                                      .y = y,
                                      .n_tokens = ROWS,
                                      .n_vocab = X_ROWS,
                                      .width = width,
                                      .dtype = BASE_F32};
        CHECK_STATUS(kern_embed(ctx, &args), BASE_OK);
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
    const float table[6] = {0};
    int32_t ids[2] = {0, 2};
    float *y = parity_guarded(4);
    kern_embed_args good = {.ids = ids,
                            .table = table,
                            .y = y,
                            .n_tokens = 2,
                            .n_vocab = 3,
                            .width = 2,
                            .dtype = BASE_F32};
    PARITY_REFUSED(kern_embed, ctx, good, n_tokens, -1);
    PARITY_REFUSED(kern_embed, ctx, good, width, 0);
    PARITY_REFUSED(kern_embed, ctx, good, n_vocab, 0);
    PARITY_REFUSED(kern_embed, ctx, good, n_vocab, 2);
    CHECK_ERROR_NAMES("id 2");
    ids[0] = -1;
    CHECK_STATUS(kern_embed(ctx, &good), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("id -1");
    good.n_tokens = 0;
    CHECK_STATUS(kern_embed(ctx, &good), BASE_OK);
    parity_guarded_untouched(y, 4);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

static void ids_below_zero_are_recent_ones(void **state)
{
    (void)state;
    enum { V = 6, WIDTH = 9 };
    kern_ctx *ctx = parity_ctx(1);
    float *table = parity_normals(1, V * WIDTH, 1.0);
    static const int32_t recent[] = {5, 0, 3};
    static const int32_t ids[] = {-3, 2, -1, -2};
    static const int32_t want[] = {3, 2, 5, 0};
    float *y = parity_guarded(4 * WIDTH);
    kern_embed_args args = {.ids = ids,
                            .table = table,
                            .y = y,
                            .n_tokens = 4,
                            .n_vocab = V,
                            .width = WIDTH,
                            .dtype = BASE_F32,
                            .n_recent = 3,
                            .recent = recent};
    CHECK_STATUS(kern_embed(ctx, &args), BASE_OK);
    for (int32_t t = 0; t < 4; t++) {
        assert_memory_equal(y + t * WIDTH, table + want[t] * WIDTH, WIDTH * sizeof *y);
    }
    args.n_recent = 2;
    CHECK_STATUS(kern_embed(ctx, &args), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("-3");
    parity_guarded_check(y, 4 * WIDTH);
    free(table);
    parity_guarded_free(y);
    kern_ctx_destroy(ctx);
}

static void a_part_of_the_table_gives_zeros_for_the_ids_of_others(void **state)
{
    (void)state;
    enum { V = 7, WIDTH = 9, N = 5 };
    kern_ctx *ctx = parity_ctx(1);
    float *table = parity_normals(1, V * WIDTH, 1.0);
    static const int32_t recent[] = {3, 6};
    static const int32_t ids[N] = {2, 0, -1, 6, -2};
    static const int32_t want[N] = {2, 0, 3, 6, 6};
    float sum[N * WIDTH] = {0.0f};
    float *y = parity_guarded(N * WIDTH);
    kern_embed_args args = {.ids = ids,
                            .y = y,
                            .n_tokens = N,
                            .n_vocab = V,
                            .width = WIDTH,
                            .dtype = BASE_F32,
                            .n_recent = 2,
                            .recent = recent};
    static const int32_t begins[] = {0, 2, 3, V};
    for (int32_t part = 0; part < 3; part++) {
        args.begin = begins[part];
        args.end = begins[part + 1];
        args.table = table + begins[part] * WIDTH;
        CHECK_STATUS(kern_embed(ctx, &args), BASE_OK);
        for (int32_t j = 0; j < N * WIDTH; j++) {
            sum[j] += y[j];
        }
    }
    for (int32_t t = 0; t < N; t++) {
        assert_memory_equal(sum + t * WIDTH, table + want[t] * WIDTH, WIDTH * sizeof *sum);
    }
    parity_guarded_check(y, N * WIDTH);
    parity_guarded_free(y);
    y = parity_guarded(N * WIDTH);
    args.y = y;
    PARITY_REFUSED(kern_embed, ctx, args, end, V + 1);
    CHECK_ERROR_NAMES("3..7 of 7");
    PARITY_REFUSED(kern_embed, ctx, args, end, 3);
    PARITY_REFUSED(kern_embed, ctx, args, end, 0);
    PARITY_REFUSED(kern_embed, ctx, args, begin, -1);
    parity_guarded_untouched(y, N * WIDTH);
    parity_guarded_free(y);
    free(table);
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_copied_exactly),
        cmocka_unit_test(an_f32_table_keeps_every_bit),
        cmocka_unit_test(broken_limits_are_refused),
        cmocka_unit_test(ids_below_zero_are_recent_ones),
        cmocka_unit_test(a_part_of_the_table_gives_zeros_for_the_ids_of_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
