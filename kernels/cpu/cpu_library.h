/* kernels/cpu/cpu_library.h - the matrix library (OpenBLAS) alone, as benchmarks measure kern_gemm against it, and
 * whether it knows this CPU. */
#ifndef KERNELS_CPU_CPU_LIBRARY_H
#define KERNELS_CPU_CPU_LIBRARY_H

#include "kernels/cpu/cpu_isa.h"

#include <stdint.h>

/* y[m, n] = sum_k x[m, k] * w[n, k], all f32 and contiguous: one call on the caller's thread, after any
 * kern_ctx_create_cpu. */
void cpu_library_sgemm(const float *x, const float *w, float *y, int32_t m, int32_t n, int32_t k);

/* The library chooses its code when it is loaded, by CPU models; on one that is newer than itself it falls back to SSE3,
 * which is two to four times slower. */
const char *cpu_library_core(void); /* what it chose, as it names it */

/* What OPENBLAS_CORETYPE has to say in its place on a machine with isa; NULL: core is no fallback, or nothing is better. */
const char *cpu_library_better_core(const char *core, cpu_isa isa);

/* First in the main of a program that computes: where there is something better the program starts again with it, as
 * the library cannot be told once it is there.  core_type: what OPENBLAS_CORETYPE says, which stays; NULL if it is not
 * set.  Returns where there is nothing to do. */
void cpu_library_start_again(const char *core_type, char *const argv[]);

#endif /* KERNELS_CPU_CPU_LIBRARY_H */
