#include "kernels/cpu/cpu_rows.h"

#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_vec.h"
#include "kernels/page.h"

#include <cblas.h>

#define DIRECT_ROWS 8 /* measured: sgemm wins above */

/* n rows (1, 2 or 4) against n_keys keys, two keys at a time: eight sums in flight. */
CPU_INLINE void dot_rows(const float *q, const float *k, float *s, int32_t n_keys, int32_t dim,
                         int n)
{
    int32_t j = 0;
    for (; j + 2 <= n_keys; j += 2) {
        const float *k0 = k + (int64_t)j * dim;
        const float *k1 = k0 + dim;
        cpu_f8 a[4] = {{0}};
        cpu_f8 b[4] = {{0}};
        for (int32_t d = 0; d < dim; d += CPU_LANES) {
            const cpu_f8 x0 = cpu_f8_load(k0 + d);
            const cpu_f8 x1 = cpu_f8_load(k1 + d);
            for (int r = 0; r < n; r++) {
                const cpu_f8 y = cpu_f8_load(q + r * dim + d);
                a[r] += y * x0;
                b[r] += y * x1;
            }
        }
        for (int r = 0; r < n; r++) {
            s[r * KERN_BLOCK_TOKENS + j] = cpu_f8_sum(a[r]);
            s[r * KERN_BLOCK_TOKENS + j + 1] = cpu_f8_sum(b[r]);
        }
    }
    for (; j < n_keys; j++) {
        for (int r = 0; r < n; r++) {
            cpu_f8 a = {0};
            for (int32_t d = 0; d < dim; d += CPU_LANES) {
                a += cpu_f8_load(q + r * dim + d) * cpu_f8_load(k + (int64_t)j * dim + d);
            }
            s[r * KERN_BLOCK_TOKENS + j] = cpu_f8_sum(a);
        }
    }
}

/* 16 dims at a time, so that the sums of four rows stay in registers over all keys. */
CPU_INLINE void mix_rows(const float *p, const float *v, float *o, int32_t n_keys, int32_t dim,
                         int n)
{
    for (int32_t d = 0; d < dim; d += 2 * CPU_LANES) {
        cpu_f8 a[4];
        cpu_f8 b[4];
        for (int r = 0; r < n; r++) {
            a[r] = cpu_f8_load(o + r * dim + d);
            b[r] = cpu_f8_load(o + r * dim + d + CPU_LANES);
        }
        for (int32_t j = 0; j < n_keys; j++) {
            const cpu_f8 x0 = cpu_f8_load(v + (int64_t)j * dim + d);
            const cpu_f8 x1 = cpu_f8_load(v + (int64_t)j * dim + d + CPU_LANES);
            for (int r = 0; r < n; r++) {
                const cpu_f8 w = cpu_f8_all(p[r * KERN_BLOCK_TOKENS + j]);
                a[r] += w * x0;
                b[r] += w * x1;
            }
        }
        for (int r = 0; r < n; r++) {
            cpu_f8_store(o + r * dim + d, a[r]);
            cpu_f8_store(o + r * dim + d + CPU_LANES, b[r]);
        }
    }
}

CPU_CLONES static void dot_direct(const float *q, const float *k, float *s, int32_t n_rows,
                                  int32_t n_keys, int32_t dim)
{
    int32_t r = 0;
    for (; r + 4 <= n_rows; r += 4) {
        dot_rows(q + (int64_t)r * dim, k, s + r * KERN_BLOCK_TOKENS, n_keys, dim, 4);
    }
    if (r + 2 <= n_rows) {
        dot_rows(q + (int64_t)r * dim, k, s + r * KERN_BLOCK_TOKENS, n_keys, dim, 2);
        r += 2;
    }
    if (r < n_rows) {
        dot_rows(q + (int64_t)r * dim, k, s + r * KERN_BLOCK_TOKENS, n_keys, dim, 1);
    }
}

CPU_CLONES static void mix_direct(const float *p, const float *v, float *o, int32_t n_rows,
                                  int32_t n_keys, int32_t dim)
{
    int32_t r = 0;
    for (; r + 4 <= n_rows; r += 4) {
        mix_rows(p + r * KERN_BLOCK_TOKENS, v, o + (int64_t)r * dim, n_keys, dim, 4);
    }
    if (r + 2 <= n_rows) {
        mix_rows(p + r * KERN_BLOCK_TOKENS, v, o + (int64_t)r * dim, n_keys, dim, 2);
        r += 2;
    }
    if (r < n_rows) {
        mix_rows(p + r * KERN_BLOCK_TOKENS, v, o + (int64_t)r * dim, n_keys, dim, 1);
    }
}

void cpu_rows_dot(const float *q, const float *k, float *s, int32_t n_rows, int32_t n_keys,
                  int32_t dim)
{
    if (n_rows <= DIRECT_ROWS) {
        dot_direct(q, k, s, n_rows, n_keys, dim);
    } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n_rows, n_keys, dim, 1.0f, q, dim, k,
                    dim, 0.0f, s, KERN_BLOCK_TOKENS);
    }
}

void cpu_rows_mix(const float *p, const float *v, float *o, int32_t n_rows, int32_t n_keys,
                  int32_t dim)
{
    if (n_rows <= DIRECT_ROWS) {
        mix_direct(p, v, o, n_rows, n_keys, dim);
    } else {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n_rows, dim, n_keys, 1.0f, p,
                    KERN_BLOCK_TOKENS, v, dim, 1.0f, o, dim);
    }
}
