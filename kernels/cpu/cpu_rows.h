/* kernels/cpu/cpu_rows.h - the two products of attention: a tile of rows against one block.
 *
 * Few rows: direct loops, which read the block once.  More: sgemm. */
#ifndef KERNELS_CPU_CPU_ROWS_H
#define KERNELS_CPU_CPU_ROWS_H

#include <stdint.h>

/* s[r][j] = <q[r], k[j]>   q [n_rows][dim], k [n_keys][dim], s rows of 128; dim % 16 is 0. */
void cpu_rows_dot(const float *q, const float *k, float *s, int32_t n_rows, int32_t n_keys,
                  int32_t dim);

/* o[r] += sum_j p[r][j] v[j]   p rows of 128, v [n_keys][dim], o [n_rows][dim]. */
void cpu_rows_mix(const float *p, const float *v, float *o, int32_t n_rows, int32_t n_keys,
                  int32_t dim);

#endif /* KERNELS_CPU_CPU_ROWS_H */
