/* kernels/cuda/cuda_linear.h - few rows of x times bf16 weights in one launch, with what comes before and after.
 *
 *   h[m, :] = x[m, :] / sqrt(mean over k of x[m, :]^2 + eps) * norm[:]     or x, without norm
 *   y_i[m, n] = sum_k h[m, k] w_i[n, k]  (+ bias_i[n])  (+ y_i[m, n] if accumulate)     for each part i
 *   gated, two parts of one n:  y_0 = swiglu(h w_0^T, h w_1^T)                           neither bias nor accumulate
 *
 * Weights are read once, and what fits on the chip of them before the kernel ahead on the stream has ended.
 * Numerics.  f32 sums over h as the sum of two bf16: |y - fp64| <= 2e-6 * sqrt(K) * |h||w| of the row.
 * Limits.    Those of cuda_linear_fits; pointers in device memory, x and w on 16 bytes.  y overlaps neither x nor w. */
#ifndef KERNELS_CUDA_CUDA_LINEAR_H
#define KERNELS_CUDA_CUDA_LINEAR_H

#include "base/dtype.h"
#include "base/status.h"
#include "kernels/op_gated.h"
#include "kernels/op_project.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_LINEAR_ROWS  8
#define CUDA_LINEAR_ELEMS 28672 /* of x: what shared memory holds of it */
#define CUDA_LINEAR_PARTS 3

typedef struct cuda_linear_part {
    const void *w;    /* [n, k] bf16 */
    const void *bias; /* [n] bias_dtype, or NULL */
    float *y;         /* [m, n], a row every y_stride elements */
    int32_t n;
    int32_t y_stride;
    base_dtype bias_dtype;
} cuda_linear_part;

typedef struct cuda_linear {
    const float *x;   /* [m, k], a row every x_stride elements */
    const void *norm; /* [k] bf16, or NULL */
    cuda_linear_part parts[CUDA_LINEAR_PARTS];
    int32_t n_parts;
    int32_t m;
    int32_t k;
    int32_t x_stride;
    float eps;
    bool accumulate;
    bool gated;
} cuda_linear;

/* 1 <= m <= CUDA_LINEAR_ROWS, m * k <= CUDA_LINEAR_ELEMS, k a multiple of 8, x_stride of 4. */
static inline bool cuda_linear_fits(int32_t m, int32_t k, int32_t x_stride)
{
    return m >= 1 && m <= CUDA_LINEAR_ROWS && (int64_t)m * k <= CUDA_LINEAR_ELEMS && k % 8 == 0 &&
           x_stride % 4 == 0;
}

/* Enqueues.  Errors: DEVICE_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status cuda_linear_run(void *stream, const cuda_linear *args);

/* An op, whose pointers are in device memory, as one launch.  False: it has too many rows, or a tensor that is not
 * bf16. */
bool cuda_linear_project(const kern_project_args *args, cuda_linear *linear_out);
bool cuda_linear_gated(const kern_gated_args *args, cuda_linear *linear_out);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_CUDA_LINEAR_H */
