/* kernels/cuda/gemm_rows.h - what a product by cuBLASLt needs before and after it: rows of x in 16 bits, bias.  For
 * cuda_gemm.h alone; enqueues, and leaves errors to CUDA_LAUNCHED. */
#ifndef KERNELS_CUDA_GEMM_ROWS_H
#define KERNELS_CUDA_GEMM_ROWS_H

#include "kernels/op_gemm.h"

#include <cuda_runtime_api.h>

/* out [m, k] in a.dtype (16 bits), close together: x rounded.  With `split`, out [2m, k]: after these the rows of what
 * rounding left over, so that the sum of both is x to 2^-17 (bf16) or 2^-22 (f16) of it.  k a multiple of 8. */
void gemm_rows_round(cudaStream_t stream, const kern_gemm_args &a, bool split, void *out);

/* y[m, n] (+)= sums[m, n] + sums[M + m, n] + bias[n], sums [2M, N] f32 close together. */
void gemm_rows_join(cudaStream_t stream, const kern_gemm_args &a, const float *sums);

/* y[m, n] += bias[n]. */
void gemm_rows_add_bias(cudaStream_t stream, const kern_gemm_args &a);

#endif /* KERNELS_CUDA_GEMM_ROWS_H */
