/* kern_gemm on bf16 weights against sgemm of the library alone on the same weights as f32, in turns:
 *   bench_gemm [n_threads]
 * One JSON line a shape: medians, and what share of the library's speed is reached. */
#include "base/clock.h"
#include "base/half.h"
#include "base/random.h"
#include "kernels/kern.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_RUNS  400
#define BUDGET_US 600000

typedef struct shape {
    int32_t m, n, k;
} shape;

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *memory(int64_t n_elems)
{
    float *x = calloc((size_t)n_elems, sizeof *x);
    if (x == NULL) {
        exit(1);
    }
    return x;
}

static void bench(kern_ctx *ctx, int32_t n_threads, shape s)
{
    static double ours[MAX_RUNS];
    static double theirs[MAX_RUNS];
    const int64_t n_w = (int64_t)s.n * s.k;
    float *x = memory((int64_t)s.m * s.k);
    float *w = memory(n_w);
    uint16_t *w16 = memory(n_w);
    float *y = memory((int64_t)s.m * s.n);
    int32_t n = 0;
    for (int64_t i = 0; i < n_w; i++) {
        w16[i] = base_bf16_from_f32((float)base_random_unit(1, 1, (uint64_t)i) - 0.5f);
        w[i] = base_f32_from_bf16(w16[i]);
    }
    for (int64_t i = 0; i < (int64_t)s.m * s.k; i++) {
        x[i] = (float)base_random_unit(1, 2, (uint64_t)i) - 0.5f;
    }
    const kern_gemm_args args = {.x = x,
                                 .w = w16,
                                 .y = y,
                                 .m = s.m,
                                 .n = s.n,
                                 .k = s.k,
                                 .x_stride = s.k,
                                 .y_stride = s.n,
                                 .dtype = BASE_BF16};
    const int64_t begun = base_now_us();
    while (n < MAX_RUNS && (n < 3 || base_now_us() - begun < BUDGET_US)) {
        int64_t before = base_now_ns();
        openblas_set_num_threads(n_threads);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, s.m, s.n, s.k, 1.0f, x, s.k, w, s.k,
                    0.0f, y, s.n);
        openblas_set_num_threads(1);
        theirs[n] = (double)(base_now_ns() - before) * 1e-3;
        before = base_now_ns();
        if (kern_gemm(ctx, &args) != BASE_OK) {
            fprintf(stderr, "bench_gemm: %s\n", base_last_error());
            exit(1);
        }
        ours[n++] = (double)(base_now_ns() - before) * 1e-3;
    }
    qsort(ours, (size_t)n, sizeof ours[0], compare);
    qsort(theirs, (size_t)n, sizeof theirs[0], compare);
    printf("{\"m\": %d, \"n\": %d, \"k\": %d, \"threads\": %d, \"us\": %.1f, \"library_us\": %.1f, "
           "\"gflops\": %.1f, \"of_library\": %.2f}\n",
           s.m, s.n, s.k, n_threads, ours[n / 2], theirs[n / 2],
           2e-3 * s.m * s.n * s.k / ours[n / 2], theirs[n / 2] / ours[n / 2]);
    free(x);
    free(w);
    free(w16);
    free(y);
}

int main(int argc, char **argv)
{
    /* what prefill of the demo model runs: q, kv, mlp up and down; then a layer of a 3B model */
    static const shape shapes[] = {{512, 512, 256}, {512, 256, 256}, {512, 256, 512},
                                   {512, 768, 256}, {512, 256, 768}, {512, 2048, 2048}};
    const int n_threads = argc > 1 ? atoi(argv[1]) : 1;
    kern_ctx *ctx = NULL;

    if (kern_ctx_create_cpu(n_threads, &base_heap, &ctx) != BASE_OK) {
        fprintf(stderr, "bench_gemm: %s\n", base_last_error());
        return 1;
    }
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        bench(ctx, n_threads, shapes[i]);
    }
    kern_ctx_destroy(ctx);
    return 0;
}
