/* Few rows of x: dot products straight over the weights, which are then read once from where they
 * are mapped.  More: a tile of w becomes f32 in scratch and sgemm does the rest. */
#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_state.h"
#include "kernels/cpu/cpu_vec.h"

#include <cblas.h>

#define DIRECT_M   8   /* measured: tiles win above */
#define DIRECT_N   64  /* rows of w per task */
#define TILE_M     256 /* rows of x per task */
#define MAX_DIRECT 4   /* rows of x that share one pass over a row of w */

static void put(const kern_gemm_args *a, int64_t m, int64_t n, float sum)
{
    float *y = a->y + m * a->y_stride + n;
    if (a->bias != NULL) {
        sum += cpu_elem(a->bias, n, a->dtype);
    }
    *y = a->accumulate ? *y + sum : sum;
}

/* rows (1, 2 or 4) of x from m against two rows of w: up to eight sums in flight. */
CPU_INLINE void dot_pair(const kern_gemm_args *a, int64_t m, int64_t n, base_dtype t, int rows)
{
    const int64_t k = a->k;
    const int64_t k_whole = k / CPU_LANES * CPU_LANES;
    const int64_t w0 = n * k;
    const int64_t w1 = n + 1 < a->n ? w0 + k : w0;
    cpu_f8 s0[MAX_DIRECT] = {{0}};
    cpu_f8 s1[MAX_DIRECT] = {{0}};

    for (int64_t i = 0; i < k_whole; i += CPU_LANES) {
        const cpu_f8 v0 = cpu_f8_elems(a->w, w0 + i, t);
        const cpu_f8 v1 = cpu_f8_elems(a->w, w1 + i, t);
        for (int r = 0; r < rows; r++) {
            const cpu_f8 x = cpu_f8_load(a->x + (m + r) * a->x_stride + i);
            s0[r] += x * v0;
            s1[r] += x * v1;
        }
    }
    for (int r = 0; r < rows; r++) {
        float sum0 = cpu_f8_sum(s0[r]);
        float sum1 = cpu_f8_sum(s1[r]);
        for (int64_t i = k_whole; i < k; i++) {
            const float x = a->x[(m + r) * a->x_stride + i];
            sum0 += x * cpu_elem(a->w, w0 + i, t);
            sum1 += x * cpu_elem(a->w, w1 + i, t);
        }
        put(a, m + r, n, sum0);
        if (w1 != w0) {
            put(a, m + r, n + 1, sum1);
        }
    }
}

CPU_INLINE void dot_rows(const kern_gemm_args *a, int64_t n_begin, int64_t n_end, base_dtype t)
{
    for (int64_t n = n_begin; n < n_end; n += 2) {
        int64_t m = 0;
        for (; m + 4 <= a->m; m += 4) {
            dot_pair(a, m, n, t, 4);
        }
        if (m + 2 <= a->m) {
            dot_pair(a, m, n, t, 2);
            m += 2;
        }
        if (m < a->m) {
            dot_pair(a, m, n, t, 1);
        }
    }
}

CPU_CLONES static void dot_range(const kern_gemm_args *a, int64_t n_begin, int64_t n_end)
{
    switch (a->dtype) {
    case BASE_F32: dot_rows(a, n_begin, n_end, BASE_F32); break;
    case BASE_F16: dot_rows(a, n_begin, n_end, BASE_F16); break;
    case BASE_BF16: dot_rows(a, n_begin, n_end, BASE_BF16); break;
    }
}

CPU_CLONES static void widen(const void *w, int64_t first, int64_t n, base_dtype t, float *out)
{
    int64_t i = 0;
    for (; i + CPU_LANES <= n; i += CPU_LANES) {
        cpu_f8_store(out + i, cpu_f8_elems(w, first + i, t));
    }
    for (; i < n; i++) {
        out[i] = cpu_elem(w, first + i, t);
    }
}

typedef struct gemm_job {
    const kern_gemm_args *a;
    cpu_state *state;
    int32_t n_rows; /* of w per tile */
    int32_t n_tiles_n;
} gemm_job;

static void run_direct(void *arg, int32_t task, int32_t thread)
{
    const gemm_job *job = arg;
    const int64_t begin = (int64_t)task * DIRECT_N;
    const int64_t end = begin + DIRECT_N < job->a->n ? begin + DIRECT_N : job->a->n;
    (void)thread;
    dot_range(job->a, begin, end);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void run_tile(void *arg, int32_t task, int32_t thread)
{
    const gemm_job *job = arg;
    const kern_gemm_args *a = job->a;
    float *panel = job->state->scratch[thread].gemm.w;
    const int64_t n0 = (int64_t)(task % job->n_tiles_n) * job->n_rows;
    const int64_t m0 = (int64_t)(task / job->n_tiles_n) * TILE_M;
    const int64_t n = least(job->n_rows, a->n - n0);
    const int64_t m = least(TILE_M, a->m - m0);
    float *y = a->y + m0 * a->y_stride + n0;

    for (int64_t k0 = 0; k0 < a->k; k0 += CPU_GEMM_COLS) {
        const int64_t k = least(CPU_GEMM_COLS, a->k - k0);
        const float *w = panel;
        int64_t w_stride = k;
        if (a->dtype == BASE_F32) {
            w = (const float *)a->w + n0 * a->k + k0;
            w_stride = a->k;
        } else {
            for (int64_t i = 0; i < n; i++) {
                widen(a->w, (n0 + i) * a->k + k0, k, a->dtype, panel + i * k);
            }
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)n, (blasint)k,
                    1.0f, a->x + m0 * a->x_stride + k0, a->x_stride, w, (blasint)w_stride,
                    a->accumulate || k0 > 0 ? 1.0f : 0.0f, y, a->y_stride);
    }
    for (int64_t i = 0; i < m && a->bias != NULL; i++) {
        for (int64_t j = 0; j < n; j++) {
            y[i * a->y_stride + j] += cpu_elem(a->bias, n0 + j, a->dtype);
        }
    }
}

base_status kern_cpu_gemm(kern_ctx *ctx, const kern_gemm_args *a)
{
    gemm_job job = {.a = a, .state = cpu_state_of(ctx), .n_rows = CPU_GEMM_ROWS};

    if (a->m <= DIRECT_M) {
        const int32_t n_tasks = (a->n + DIRECT_N - 1) / DIRECT_N;
        if ((int64_t)a->m * a->n * a->k < 1 << 18) { /* less than a wake-up costs */
            dot_range(a, 0, a->n);
        } else {
            cpu_pool_run(job.state->pool, n_tasks, run_direct, &job);
        }
        return BASE_OK;
    }
    job.n_tiles_n = (a->n + job.n_rows - 1) / job.n_rows;
    const int32_t n_tiles_m = (a->m + TILE_M - 1) / TILE_M;
    cpu_pool_run(job.state->pool, n_tiles_m * job.n_tiles_n, run_tile, &job);
    return BASE_OK;
}
