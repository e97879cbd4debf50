/* kernels/cuda/cuda_gemm.h - op_gemm.h on a GPU: what it needs beside its arguments, and its ways.
 *
 * Few rows of x times bf16 weights, which is decode: cuda_linear.h, alone or with what comes before and after.  Where
 * that does not fit, up to CUDA_GEMV_ROWS rows of x: a kernel that reads w once and multiplies x as f32.  Their errors
 * are what op_gemm.h allows.
 * More rows: cuBLASLt with f32 sums.  Weights of 16 bits, up to CUDA_SPLIT_ROWS rows: x is the sum of two numbers of
 * the weights' type, multiplied side by side, so that w is still read once; op_gemm.h's error holds, and a row of
 * a decode batch has the same result as alone, but for the order of sums.
 * Yet more rows of these: x is rounded to the weights' type, as is usual for prefill: |y - fp64| <=
 * (2^-8 for bf16, 2^-11 for f16) * |x||w| of the row, in practice a hundredth of it.  f16: x beyond 65504 becomes 65504.
 * f32 weights: nothing is rounded, and op_gemm.h's error holds.
 * Shapes that 16-byte accesses do not fit (k not a multiple of 8), and shapes cuBLASLt refuses: a plain kernel.
 *
 * Arguments as in cuda_ops.h.  One cuda_gemm serves one stream at a time: calls share its scratch. */
#ifndef KERNELS_CUDA_CUDA_GEMM_H
#define KERNELS_CUDA_CUDA_GEMM_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/op_gemm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_GEMV_ROWS  4 /* measured: cuBLASLt wins above */
#define CUDA_SPLIT_ROWS 256

typedef struct cuda_gemm cuda_gemm;

/* Takes 96 MiB of the current device: rows in 16 bits, their sums, and cuBLASLt's workspace.  mem outlives the result.
 * Errors: NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status cuda_gemm_create(const base_alloc *mem, cuda_gemm **gemm_out);
void cuda_gemm_destroy(cuda_gemm *gemm); /* NULL is allowed; nothing of it may be under way */

/* Enqueues.  The first call of a shape asks cuBLASLt for an algorithm (about 0.1 ms on the host, no device work), later
 * ones find it; both may be captured in a graph.  Errors: DEVICE_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status kern_cuda_gemm(cuda_gemm *gemm, void *stream,
                                           const kern_gemm_args *args);

/* Its ways, each for any m >= 1 that its line allows. */
BASE_MUST_CHECK base_status
cuda_gemv(void *stream, const kern_gemm_args *args); /* m <= CUDA_GEMV_ROWS, k % 8 = 0 */
BASE_MUST_CHECK base_status cuda_gemm_blas(cuda_gemm *gemm, void *stream,
                                           const kern_gemm_args *args); /* k % 8 = 0 */
BASE_MUST_CHECK base_status cuda_gemm_plain(void *stream, const kern_gemm_args *args); /* slow */

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_CUDA_GEMM_H */
