/* kernels/cpu/cpu_few_avx2.h - the loops of cpu_few.c.  Callers have checked the CPU. */
#ifndef KERNELS_CPU_CPU_FEW_AVX2_H
#define KERNELS_CPU_CPU_FEW_AVX2_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cpu_few_job { /* one segment of one page */
    const uint8_t *codes;
    const uint8_t *levels; /* [16], codes only */
    const float *norms;    /* [128] and 8 that are read but not used, codes only */
    int32_t n_dims;        /* multiple of 16 */
    int32_t bits;          /* 1..4; or 16, bf16 */
    bool add;              /* dot: to what s holds */
} cpu_few_job;

/* Largest magnitude of x [n], n a multiple of 8; infinity if one is NaN. */
float cpu_few_top(const float *x, int32_t n);
/* out = round(x * factor), n a multiple of 16; returns the sum of out. */
int32_t cpu_few_round(const float *x, int32_t n, float factor, int16_t *out);
/* 128 fp16 to f32. */
void cpu_few_norms(const uint8_t *f16, float *norms_out);

/* n is 1, 2 or 4 rows.  q16 [n][n_dims], p16 [n][128]; scale and sum [n]: the value of row r is
 * scale[r] * (2 * integer sum - sum[r]), whose bracket fits int32 though its terms may not. */
void cpu_few_dot_codes(const cpu_few_job *job, const int16_t *q16, const float *scale,
                       const int32_t *sum, float *s, int32_t n);
void cpu_few_mix_codes(const cpu_few_job *job, const int16_t *p16, const float *scale,
                       const int32_t *sum, float *o, int32_t o_stride, int32_t n);
void cpu_few_dot_bf16(const cpu_few_job *job, const float *q, int32_t q_stride, float *s,
                      int32_t n);
void cpu_few_mix_bf16(const cpu_few_job *job, const float *p, float *o, int32_t o_stride,
                      int32_t n);

#endif /* KERNELS_CPU_CPU_FEW_AVX2_H */
