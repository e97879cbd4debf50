/* kernels/cpu/cpu_library.h - the matrix library alone, as benchmarks measure kern_gemm against it. */
#ifndef KERNELS_CPU_CPU_LIBRARY_H
#define KERNELS_CPU_CPU_LIBRARY_H

#include <stdint.h>

/* y[m, n] = sum_k x[m, k] * w[n, k], all f32 and contiguous: one call on the caller's thread, after any
 * kern_ctx_create_cpu. */
void cpu_library_sgemm(const float *x, const float *w, float *y, int32_t m, int32_t n, int32_t k);

#endif /* KERNELS_CPU_CPU_LIBRARY_H */
