/* The CUDA ops that treat rows of activations one by one, against the CPU: embed, deal, bias, rope. */
#include "kernels/cuda/cuda_ops.h"
#include "tests/support/parity_cuda.h"

static const base_dtype dtypes[] = {BASE_F32, BASE_F16, BASE_BF16};

static void embed_copies_every_dtype_exactly(void **state)
{
    enum { VOCAB = 71, TOKENS = 9 };
    static const int32_t widths[] = {1, 8, 77, 2048};
    static const int32_t ids[TOKENS] = {0, 70, 3, -1, 69, 1, 0, -2, 70};
    static const int32_t recent[2] = {44, 3};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < 2 * 4 * 3; i++) {
        const bool part = i >= 4 * 3; /* of the table: other ids give zeros */
        const int32_t width = widths[i / 3 % 4];
        const base_dtype t = dtypes[i % 3];
        float *x = parity_normals(i, (int64_t)VOCAB * width, 10.0);
        void *table = parity_elems(x, (int64_t)VOCAB * width, t);
        float *want = parity_memory((int64_t)TOKENS * width, sizeof *want);
        kern_embed_args a = {.ids = ids,
                             .table = table,
                             .y = want,
                             .n_tokens = TOKENS,
                             .n_vocab = VOCAB,
                             .width = width,
                             .dtype = t,
                             .n_recent = 2,
                             .recent = recent,
                             .begin = part ? 3 : 0,
                             .end = part ? 70 : 0};
        CHECK_STATUS(kern_embed(ctx, &a), BASE_OK);

        const size_t n_bytes = (size_t)TOKENS * (size_t)width * sizeof(float);
        parity_device device = {.n_held = 0};
        void *dy = on_device(x, n_bytes);
        a.ids = device_copy(&device, ids, sizeof ids);
        a.table = device_copy(&device, table, VOCAB * (size_t)width * base_dtype_bytes(t));
        a.recent = device_copy(&device, recent, sizeof recent);
        a.y = dy;
        CHECK_STATUS(kern_cuda_embed(NULL, &a), BASE_OK);
        void *got = bytes_from_device(dy, n_bytes);
        assert_memory_equal(got, want, n_bytes);
        device_free(&device);
        free(got);
        free(want);
        free(table);
        free(x);
    }
    kern_ctx_destroy(ctx);
}

static void deal_copies_every_row_to_its_place(void **state)
{
    enum { RANKS = 4, HEADS = 9 };
    static const int32_t begins[RANKS + 1] = {0, 1, 4, 8, HEADS};
    static const int32_t shapes[][2] = {{0, 64}, {1, 128}, {3, 64}, {130, 128}};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const int64_t n = (int64_t)shapes[i][0] * HEADS * (shapes[i][1] + 1);
        float *x = parity_normals(i, n, 1.0);
        float *want = parity_memory(n, sizeof *want);
        kern_deal_args a = {.x = x,
                            .y = want,
                            .begins = begins,
                            .n_ranks = RANKS,
                            .n_tokens = shapes[i][0],
                            .n_heads = HEADS,
                            .head_dim = shapes[i][1]};
        CHECK_STATUS(kern_deal(ctx, &a), BASE_OK);
        parity_device device = {.n_held = 0};
        a.x = device_copy(&device, x, (size_t)(n + 1) * sizeof *x);
        a.y = device_copy(&device, x, (size_t)(n + 1) * sizeof *x);
        CHECK_STATUS(kern_cuda_deal(NULL, &a), BASE_OK);
        want[n] = x[n]; /* nothing behind y is written */
        float *got = parity_memory(n, sizeof *got);
        assert_int_equal(
            cudaMemcpy(got, a.y, (size_t)(n + 1) * sizeof *got, cudaMemcpyDeviceToHost),
            cudaSuccess);
        assert_memory_equal(got, want, (size_t)(n + 1) * sizeof *got);
        device_free(&device);
        free(got);
        free(want);
        free(x);
    }
    kern_ctx_destroy(ctx);
}

static void embed_takes_many_rows_of_activations(void **state)
{
    enum { X_ROWS = 37, ROWS = 1100 };
    static const int32_t widths[] = {1, 6, 256};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const int32_t width = widths[i];
        float *x = parity_normals(i, (int64_t)X_ROWS * width, 1.0);
        float *y = parity_memory((int64_t)ROWS * width, sizeof *y);
        int32_t *rows = parity_memory(ROWS, sizeof *rows);
        for (int32_t r = 0; r < ROWS; r++) {
            rows[r] = (int32_t)(base_random_u64(PARITY_SEED, 5, (uint64_t)r) % X_ROWS);
        }
        void *dx = on_device(x, (size_t)X_ROWS * (size_t)width * sizeof *x);
        void *dy = on_device(y, (size_t)ROWS * (size_t)width * sizeof *y);
        void *drows = on_device(rows, ROWS * sizeof *rows);
        const kern_embed_args a = {.ids = drows,
                                   .table = dx,
                                   .y = dy,
                                   .n_tokens = ROWS,
                                   .n_vocab = X_ROWS,
                                   .width = width,
                                   .dtype = BASE_F32};
        CHECK_STATUS(kern_cuda_embed(NULL, &a), BASE_OK);
        float *got = from_device(dy, (int64_t)ROWS * width);
        for (int32_t r = 0; r < ROWS; r++) {
            assert_memory_equal(got + (int64_t)r * width, x + (int64_t)rows[r] * width,
                                (size_t)width * sizeof *x);
        }
        (void)cudaFree(drows);
        (void)cudaFree(dx);
        free(got);
        free(rows);
        free(y);
        free(x);
    }
}

static void bias_adds_every_dtype_exactly(void **state)
{
    static const int32_t shapes[][2] = {{1, 1}, {3, 255}, {5, 256}, {1500, 8}, {2, 4104}};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < 5 * 3; i++) {
        const int32_t rows = shapes[i / 3][0];
        const int32_t cols = shapes[i / 3][1];
        const base_dtype t = dtypes[i % 3];
        const size_t n_bytes = (size_t)rows * (size_t)cols * sizeof(float);
        float *x = parity_normals(i, (int64_t)rows * cols, 1.0);
        float *b32 = parity_normals(100 + i, cols, 1.0);
        void *b = parity_elems(b32, cols, t);
        void *dx = on_device(x, n_bytes);
        void *db = on_device(b, (size_t)cols * base_dtype_bytes(t));
        kern_bias_args a = {x, b, rows, cols, t};
        CHECK_STATUS(kern_bias(ctx, &a), BASE_OK);
        a.x = dx;
        a.bias = db;
        CHECK_STATUS(kern_cuda_bias(NULL, &a), BASE_OK);
        void *got = bytes_from_device(dx, n_bytes);
        assert_memory_equal(got, x, n_bytes);
        (void)cudaFree(db);
        free(got);
        free(b);
        free(b32);
        free(x);
    }
    kern_ctx_destroy(ctx);
}

/* Both libraries' sines are right to about an f64 ulp, so almost every one rounds to the same f32. */
static void rope_agrees_at_every_position(void **state)
{
    enum { TOKENS = 18, HEADS = 3 };
    static const int32_t dims[] = {2, 64, 128, 256};
    static const int64_t positions[TOKENS] = {
        0,   1,   127, 131071, 800001, 1000003, 9999991, 1 << 30, INT32_MAX,
        128, 255, 256, 4095,   65537,  500000,  1000000, 1048575, 2097151};
    kern_ctx *ctx = parity_ctx(1);
    (void)state;
    for (size_t i = 0; i < 4 * 2; i++) {
        const int32_t dim = dims[i / 2];
        const int32_t n_tokens = i % 2 == 0 ? TOKENS : TOKENS / 2;
        const int32_t stride = HEADS * dim + 5; /* the gap is not touched */
        const int64_t n = n_tokens * (int64_t)stride;
        float freq[KERN_MAX_HEAD_DIM / 2];
        for (int32_t f = 0; f < dim / 2; f++) {
            freq[f] = (float)pow(1e6, -2.0 * f / dim);
        }
        float *x = parity_normals(i, n, 1.0);
        parity_device device = {.n_held = 0};
        void *dx = on_device(x, (size_t)n * sizeof *x);
        float *turns = parity_memory((int64_t)n_tokens * dim, sizeof *turns);
        kern_turns_args turn = {positions, freq, turns, n_tokens, dim};
        kern_rope_args a = {x, turns, n_tokens, HEADS, dim, stride};
        CHECK_STATUS(kern_turns(ctx, &turn), BASE_OK);
        CHECK_STATUS(kern_rope(ctx, &a), BASE_OK);
        turn.turns = on_device(turns, (size_t)n_tokens * (size_t)dim * sizeof *turns);
        turn.positions = device_copy(&device, positions, sizeof positions);
        turn.inv_freq = device_copy(&device, freq, sizeof freq);
        a.x = dx;
        a.turns = turn.turns;
        CHECK_STATUS(kern_cuda_turns(NULL, &turn), BASE_OK);
        CHECK_STATUS(kern_cuda_rope(NULL, &a), BASE_OK);
        float *got = from_device(dx, n);
        int64_t n_same = 0;
        for (int64_t j = 0; j < n; j++) {
            n_same += got[j] == x[j];
        }
        check_close(got, x, n, 6e-7, 0.0);
        assert_true(n_same * 1000 >= n * 999);
        device_free(&device);
        (void)cudaFree(turn.turns);
        free(turns);
        free(got);
        free(x);
    }
    kern_ctx_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed_copies_every_dtype_exactly),
        cmocka_unit_test(embed_takes_many_rows_of_activations),
        cmocka_unit_test(deal_copies_every_row_to_its_place),
        cmocka_unit_test(bias_adds_every_dtype_exactly),
        cmocka_unit_test(rope_agrees_at_every_position),
    };
    return PARITY_CUDA_MAIN(tests);
}
