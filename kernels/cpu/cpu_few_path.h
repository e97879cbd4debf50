/* kernels/cpu/cpu_few_path.h - the loops of cpu_few.h for one instruction set.
 *
 * A path reads pages through kern_side and cpu_few_side; its callers have checked the CPU, the plan and that all
 * inputs are finite. */
#ifndef KERNELS_CPU_CPU_FEW_PATH_H
#define KERNELS_CPU_CPU_FEW_PATH_H

#include "kernels/cpu/cpu_few.h"

#define CPU_FEW_PASS 4 /* rows of one pass over a page */

typedef struct cpu_few_call { /* one pass */
    const kern_side *side;
    const cpu_few_side *plan;
    const uint8_t *head_page;
    int32_t head_dim;
    int32_t n_rows;      /* 1, 2 or CPU_FEW_PASS */
    cpu_few_bytes ahead; /* to have fetched by the end of the pass */
} cpu_few_call;

typedef struct cpu_few_path {
    /* Largest magnitude of x [n], n a multiple of 8; infinity if one is NaN. */
    float (*top)(const float *x, int32_t n);
    /* s[r][j] = <q[r], K_j>: q [n_rows][head_dim], rows of s KERN_BLOCK_TOKENS apart.  NULL: not of K. */
    void (*dot)(const cpu_few_call *call, const float *q, float *s);
    /* o[r] += sum_j p[r][j] V_j.  NULL: not of V. */
    void (*mix)(const cpu_few_call *call, const float *p, float *o);
} cpu_few_path;

/* Brings what is needed next into the cache, a few lines at each of n_turns turns. */
typedef struct cpu_few_fetcher {
    cpu_few_bytes left;
    int64_t bytes_a_turn;
} cpu_few_fetcher;

#define CPU_FEW_LINE 64

static inline __attribute__((always_inline)) cpu_few_fetcher
cpu_few_fetcher_of(const cpu_few_call *call, int64_t n_turns)
{
    const int64_t n_lines = (call->ahead.end - call->ahead.begin + CPU_FEW_LINE - 1) / CPU_FEW_LINE;
    return (cpu_few_fetcher){call->ahead, (n_lines + n_turns - 1) / n_turns * CPU_FEW_LINE};
}

static inline __attribute__((always_inline)) void cpu_few_fetch(cpu_few_fetcher *f)
{
    const uint8_t *p = f->left.begin;
    const int64_t n = f->left.end - p < f->bytes_a_turn ? f->left.end - p : f->bytes_a_turn;
    for (int64_t i = 0; i < n; i += CPU_FEW_LINE) {
        __builtin_prefetch(p + i);
    }
    f->left.begin = p + n;
}

#if defined(__x86_64__)
extern const cpu_few_path cpu_few_avx2;          /* AVX2, FMA, F16C */
extern const cpu_few_path cpu_few_avx512;        /* AVX-512 F, BW, VL, VBMI, VNNI */
extern const cpu_few_path cpu_few_affine_k_avx2; /* affine by channel */
extern const cpu_few_path cpu_few_affine_k_avx512;
extern const cpu_few_path cpu_few_affine_v_avx2; /* affine by position */
extern const cpu_few_path cpu_few_affine_v_avx512;
#endif

#endif /* KERNELS_CPU_CPU_FEW_PATH_H */
