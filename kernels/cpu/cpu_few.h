/* kernels/cpu/cpu_few.h - a page against few query rows (decode), without K or V ever written as f32.
 *
 * Codes of 1..4 bits whose centroids are multiples of a scale (codebook.h): levels by byte shuffles, queries and
 * weights as 16-bit integers, exact integer sums.  bf16: fused multiply-add while widening.
 * Chosen at run time where the CPU has AVX2 and FMA; elsewhere, and for other sides, callers decode to
 * f32 (cpu_page.h), which is also the reference that tests hold this to. */
#ifndef KERNELS_CPU_CPU_FEW_H
#define KERNELS_CPU_CPU_FEW_H

#include "kernels/page.h"

#include <stdbool.h>
#include <stdint.h>

#define CPU_FEW_ROWS 16 /* measured: decoding to f32 and sgemm win above */

typedef struct cpu_few_segment {
    uint8_t levels[16]; /* of each code: centroid = scale * (2 * level - offset) */
    int32_t offset;     /* 256, or 255 where levels lie halfway between integers */
    float scale;
} cpu_few_segment;

typedef struct cpu_few_side {
    bool usable; /* else: decode */
    cpu_few_segment segments[KERN_MAX_SEGMENTS];
} cpu_few_side;

/* What the fast path needs to know of a side; usable is false where it cannot do it. */
void cpu_few_plan(const kern_side *side, int32_t head_page_bytes, cpu_few_side *plan_out);

/* s[r][j] = <q[r], K_j> for all 128 positions, rows of s 128 apart.  q [n_rows][head_dim], 1..CPU_FEW_ROWS
 * rows.  A query is rounded to 2^-15 of its largest value in a segment.
 * false, nothing written: a query is not finite. */
bool cpu_few_dot(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, const float *q, float *s, int32_t n_rows);

/* o[r] += sum_j p[r][j] V_j.  A weight times its norm is rounded to 2^-15 of the largest of the page.
 * false, nothing written: a weight is not finite. */
bool cpu_few_mix(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, const float *p, float *o, int32_t n_rows);

#endif /* KERNELS_CPU_CPU_FEW_H */
