/* kernels/op_gated.h - the first half of Llama's MLP: normalised rows times two weight matrices, one gating the other.
 *
 *   h[m, :] = x[m, :] / sqrt(mean over k of x[m, k]^2 + eps) * norm[:]
 *   y[m, f] = g / (1 + exp(-g)) * u      g = sum_k h[m, k] * gate[f, k],  u = sum_k h[m, k] * up[f, k]
 *
 *   x         [M, K]  f32, contiguous
 *   norm      [K]     norm_dtype
 *   h         [M, K]  f32: room; what it holds afterwards is nobody's business
 *   gate, up  [F, K]  gate_dtype, up_dtype, as in op_gemm.h
 *   room      [M, F]  f32: as h
 *   y         [M, F]  f32, contiguous
 *
 * Aliasing.   h may be x.  y and room overlap nothing.
 * Limits.     M >= 0, K >= 1, F >= 1.
 * Numerics.   That of op_project.h for g and u, that of op_swiglu.h for the rest.  The same bits as op_rmsnorm.h,
 *             op_gemm.h and op_swiglu.h one after the other on the CPU.
 * Errors.     BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_GATED_H
#define KERNELS_OP_GATED_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_gated_args {
    const float *x;
    const void *norm;
    float *h;
    const void *gate;
    const void *up;
    float *room;
    float *y;
    int32_t m;
    int32_t f;
    int32_t k;
    float eps;
    base_dtype norm_dtype;
    base_dtype gate_dtype;
    base_dtype up_dtype;
} kern_gated_args;

BASE_MUST_CHECK base_status kern_gated(struct kern_ctx *ctx, const kern_gated_args *args);

#endif /* KERNELS_OP_GATED_H */
