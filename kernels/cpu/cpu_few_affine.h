/* kernels/cpu/cpu_few_affine.h - an affine page against few query rows (decode), without K or V ever written as
 * f32: what cpu_few.h is for codebooks.
 *
 * K's scale folds into the query, once for every group of positions; V's into the weight, once for every group of
 * channels.  Minima never meet a code: they leave as sum of q * min and of p * min.  What is left is sums of small
 * integers times folded values, which are rounded to 16 bits and multiplied byte by byte, exactly.
 * Chosen at run time where the CPU has AVX2, FMA and F16C; elsewhere, and for other segments, callers decode to f32
 * (cpu_page.h), which is also the reference that tests hold this to. */
#ifndef KERNELS_CPU_CPU_FEW_AFFINE_H
#define KERNELS_CPU_CPU_FEW_AFFINE_H

#include "kernels/page.h"

#include <stdbool.h>
#include <stdint.h>

/* Can dot read the side as K, and mix as V?  Codes of 2 or 4 bits, segments of 64 or 128 dims, K by channel and V
 * by position. */
bool cpu_few_affine_reads_k(const kern_side *side);
bool cpu_few_affine_reads_v(const kern_side *side);

/* s[r][j] = <q[r], K_j> for all 128 positions, rows of s 128 apart.  q [n_rows][head_dim].  A query times its scale
 * is rounded to 2^-15 of its largest value in the page (cpu_few_fold.h).
 * false, nothing written: a query is not finite. */
bool cpu_few_affine_dot(const kern_side *side, int32_t head_dim, const uint8_t *head_page,
                        const float *q, float *s, int32_t n_rows);

/* o[r] += sum_j p[r][j] V_j.  A weight times its scale is rounded to 2^-15 of the largest of the page.
 * false, nothing written: a weight is not finite. */
bool cpu_few_affine_mix(const kern_side *side, int32_t head_dim, const uint8_t *head_page,
                        const float *p, float *o, int32_t n_rows);

#endif /* KERNELS_CPU_CPU_FEW_AFFINE_H */
