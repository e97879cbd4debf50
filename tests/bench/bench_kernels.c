/* Times gemm and attention at the shapes of the demo model, one JSON line each:
 *   bench_kernels [n_threads]
 * gflops counts multiplies and adds of the products; gbytes what must be read at least once. */
#include "base/clock.h"
#include "base/half.h"
#include "base/random.h"
#include "kernels/kern.h"
#include "tests/support/page_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#define HEAD_DIM   128
#define N_HEADS    4
#define N_KV_HEADS 2
#define CONTEXT    8192
#define CHUNK      512
#define N_BLOCKS   (CONTEXT / KERN_BLOCK_TOKENS)
#define BUDGET_US  400000

typedef base_status (*bench_fn)(kern_ctx *ctx, const void *args);

static base_status run_gemm(kern_ctx *ctx, const void *args)
{
    return kern_gemm(ctx, args);
}

static base_status run_attn(kern_ctx *ctx, const void *args)
{
    return kern_attn(ctx, args);
}

static base_status run_pack(kern_ctx *ctx, const void *args)
{
    return kern_pack_pages(ctx, args);
}

/* Microseconds of the fastest of several runs. */
static double best_us(kern_ctx *ctx, bench_fn fn, const void *args)
{
    const int64_t begun = base_now_us();
    double best = 1e30;
    for (int i = 0; i < 3 || base_now_us() - begun < BUDGET_US; i++) {
        const int64_t before = base_now_us();
        const base_status st = fn(ctx, args);
        const double took = (double)(base_now_us() - before);
        if (st != BASE_OK) {
            fprintf(stderr, "bench_kernels: %s\n", base_last_error());
            exit(1);
        }
        best = took < best ? took : best;
    }
    return best < 1.0 ? 1.0 : best;
}

static void *filled(int64_t n_elems, bool bf16)
{
    float *x = calloc((size_t)n_elems, sizeof *x);
    uint16_t *h = (uint16_t *)x;
    if (x == NULL) {
        exit(1);
    }
    for (int64_t i = 0; i < n_elems; i++) {
        const float v = (float)base_random_unit(1, 1, (uint64_t)i) - 0.5f;
        if (bf16) {
            h[i] = base_bf16_from_f32(v);
        } else {
            x[i] = v;
        }
    }
    return x;
}

static void bench_gemm(kern_ctx *ctx, int32_t m, int32_t n, int32_t k, base_dtype dtype)
{
    float *x = filled((int64_t)m * k, false);
    void *w = filled((int64_t)n * k, dtype != BASE_F32);
    float *y = filled((int64_t)m * n, false);
    const kern_gemm_args args = {.x = x,
                                 .w = w,
                                 .y = y,
                                 .m = m,
                                 .n = n,
                                 .k = k,
                                 .x_stride = k,
                                 .y_stride = n,
                                 .dtype = dtype};
    const double us = best_us(ctx, run_gemm, &args);
    const double n_bytes = (double)n * k * (double)base_dtype_bytes(dtype);
    printf("{\"op\": \"gemm\", \"m\": %d, \"n\": %d, \"k\": %d, \"bytes\": %zu, \"us\": %.1f, "
           "\"gflops\": %.1f, \"gbytes\": %.2f}\n",
           m, n, k, base_dtype_bytes(dtype), us, 2e-3 * m * n * k / us, n_bytes * 1e-3 / us);
    free(x);
    free(w);
    free(y);
}

/* The last n_tokens of CONTEXT positions, all earlier blocks in pages, the chunk's in opens too. */
static void bench_attn(kern_ctx *ctx, int32_t bits, int32_t n_tokens)
{
    static page_fixture fx;
    kern_head_format formats[N_KV_HEADS];
    kern_attn_page list[N_BLOCKS];
    kern_pack packs[N_BLOCKS];
    kern_open opens[N_BLOCKS];
    const int32_t n_opens = (n_tokens + KERN_BLOCK_TOKENS - 1) / KERN_BLOCK_TOKENS;

    page_fixture_init(&fx, HEAD_DIM, 1, &bits, &bits, true, 1);
    for (int32_t h = 0; h < N_KV_HEADS; h++) {
        formats[h] = fx.format;
        formats[h].offset = (int64_t)h * fx.format.head_page_bytes;
    }
    const int64_t stride = (int64_t)N_KV_HEADS * fx.format.head_page_bytes;
    uint8_t *pages = filled(N_BLOCKS * stride / 4 + 1, false);
    uint16_t *rows = filled(kern_open_elems(N_KV_HEADS, HEAD_DIM), true);
    for (int32_t b = 0; b < N_BLOCKS; b++) {
        list[b] = (kern_attn_page){b, b};
        packs[b] = (kern_pack){0, b};
        opens[b] = (kern_open){.block = N_BLOCKS - n_opens + b, .rows = rows};
    }
    const kern_pack_args pack = {.packs = packs,
                                 .opens = opens,
                                 .formats = formats,
                                 .pages = pages,
                                 .page_stride = stride,
                                 .n_packs = N_BLOCKS,
                                 .n_opens = n_opens,
                                 .n_pages = N_BLOCKS,
                                 .n_kv_heads = N_KV_HEADS};
    const double pack_us = best_us(ctx, run_pack, &pack);

    float *q = filled((int64_t)n_tokens * N_HEADS * HEAD_DIM, false);
    float *o = filled((int64_t)n_tokens * N_HEADS * (HEAD_DIM + 1), false);
    const kern_attn_seq seq = {.position = CONTEXT - n_tokens,
                               .n_tokens = n_tokens,
                               .n_pages = N_BLOCKS - 1,
                               .n_opens = n_opens};
    const kern_attn_args attn = {.q = q,
                                 .o = o,
                                 .lse = o + (int64_t)n_tokens * N_HEADS * HEAD_DIM,
                                 .seqs = &seq,
                                 .page_list = list,
                                 .opens = opens,
                                 .formats = formats,
                                 .pages = pages,
                                 .page_stride = stride,
                                 .n_pages_total = N_BLOCKS,
                                 .n_seqs = 1,
                                 .n_page_list = N_BLOCKS - 1,
                                 .n_opens = n_opens,
                                 .n_tokens = n_tokens,
                                 .n_heads = N_HEADS,
                                 .n_kv_heads = N_KV_HEADS,
                                 .head_dim = HEAD_DIM,
                                 .scale = 0.088f};
    const double us = best_us(ctx, run_attn, &attn);
    const double n_keys = (double)n_tokens * (CONTEXT - n_tokens / 2.0);
    printf("{\"op\": \"attn\", \"bits\": %d, \"tokens\": %d, \"context\": %d, \"us\": %.1f, "
           "\"gflops\": %.1f, \"gbytes\": %.2f, \"pack_us_per_block\": %.1f}\n",
           bits, n_tokens, CONTEXT, us, 4e-3 * n_keys * N_HEADS * HEAD_DIM / us,
           (double)kern_attn_bytes(&attn) * 1e-3 / us, pack_us / N_BLOCKS);
    free(pages);
    free(rows);
    free(q);
    free(o);
}

int main(int argc, char **argv)
{
    static const int32_t bits[] = {16, 2, 3, 4, 8};
    static const int32_t shapes[][2] = {
        {256, 512}, {512, 256}, {768, 256}, {256, 768}, {4096, 256}}; /* n, k */
    static const int32_t rows[] = {1, 4, 8, 16, 32, CHUNK};
    const int n_threads = argc > 1 ? atoi(argv[1]) : 1;
    kern_ctx *ctx = NULL;

    if (kern_ctx_create_cpu(n_threads, &base_heap, &ctx) != BASE_OK) {
        fprintf(stderr, "bench_kernels: %s\n", base_last_error());
        return 1;
    }
    bench_gemm(ctx, 1024, 1024, 1024, BASE_F32); /* the machine's sgemm */
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
            bench_gemm(ctx, rows[r], shapes[s][0], shapes[s][1], BASE_BF16);
        }
    }
    for (size_t b = 0; b < sizeof bits / sizeof bits[0]; b++) {
        bench_attn(ctx, bits[b], CHUNK);
        bench_attn(ctx, bits[b], 4);
        bench_attn(ctx, bits[b], 1);
    }
    kern_ctx_destroy(ctx);
    return 0;
}
