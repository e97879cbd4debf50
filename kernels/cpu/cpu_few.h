/* kernels/cpu/cpu_few.h - a page against few query rows (decode), without K or V ever written as f32.
 *
 * Codes of 1..4 bits whose centroids are multiples of a scale (codebook.h): levels by byte shuffles, queries and
 * weights as 16-bit integers, integer sums.  Codes of 5..8 bits: the centroids themselves; those of 5 and 6 bits
 * must come in pairs of either sign.  bf16: fused multiply-add while widening.
 * Affine codes of 2 and 4 bits, segments of 64 or 128 dims: K by channel, whose scale folds into the query once for every
 * group of positions, and V by position, whose scale folds into the weight once for every group of channels.  Minima never
 * meet a code: they leave as sum of q * min and of p * min.
 * The path is chosen by the CPU's features (cpu_isa.h); where there is none, and for other sides, callers decode
 * to f32 (cpu_page.h), which is also the reference that tests hold every path to. */
#ifndef KERNELS_CPU_CPU_FEW_H
#define KERNELS_CPU_CPU_FEW_H

#include "kernels/cpu/cpu_isa.h"
#include "kernels/page.h"

#include <stdbool.h>
#include <stdint.h>

#define CPU_FEW_ROWS   16 /* measured: decoding to f32 and sgemm win above */
#define CPU_FEW_LEVELS 4  /* bits up to which codes are integer levels */

typedef struct cpu_few_segment {
    /* Up to CPU_FEW_LEVELS bits: centroid = scale * (2 * level - bias), level 0 for code 0.  levels[k][i]: of the k-th
     * code in the four bits i, as many as these hold. */
    uint8_t levels[4][16];
    int32_t bias;
    float scale;
    /* 5 and 6 bits: byte k of the centroids that are not negative, ascending, little-endian. */
    uint8_t planes[4][32];
} cpu_few_segment;

typedef struct cpu_few_bytes {
    const uint8_t *begin;
    const uint8_t *end;
} cpu_few_bytes;

typedef struct cpu_few_side {
    bool usable; /* else: decode */
    const struct cpu_few_path *path;
    int32_t begin; /* [begin, end) of the head page is this side */
    int32_t end;
    cpu_few_segment segments[KERN_MAX_SEGMENTS];
} cpu_few_side;

/* What the fast path needs to know of a side; usable is false where it cannot do it. */
void cpu_few_plan(const kern_side *side, int32_t head_page_bytes, cpu_isa isa,
                  cpu_few_side *plan_out);

/* The bytes of a side; none if its plan is not usable. */
cpu_few_bytes cpu_few_bytes_of(const cpu_few_side *plan, const uint8_t *head_page);

/* s[r][j] = <q[r], K_j> for all 128 positions, rows of s 128 apart.  q [n_rows][head_dim], 1..CPU_FEW_ROWS
 * rows.  Against codes of 1..4 bits a query is rounded to 2^-15 of its largest value; against affine codes a query times its scale, to
 * that of its largest value in the page.
 * ahead: what the caller reads next, fetched into the cache meanwhile; may be empty.
 * false, nothing written: a query is not finite, or the side is affine by position. */
bool cpu_few_dot(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, cpu_few_bytes ahead, const float *q, float *s,
                 int32_t n_rows);

/* o[r] += sum_j p[r][j] V_j.  Against codes of 1..4 bits a weight times its norm or scale is rounded to 2^-15 of
 * the largest of the page.
 * false, nothing written: a weight is not finite, or the side is affine by channel. */
bool cpu_few_mix(const kern_side *side, const cpu_few_side *plan, int32_t head_dim,
                 const uint8_t *head_page, cpu_few_bytes ahead, const float *p, float *o,
                 int32_t n_rows);

#endif /* KERNELS_CPU_CPU_FEW_H */
