/* kernels/cuda/merge_row.cuh - the arithmetic of op_merge.h on one row, written once: whatever brings partials
 * together gives the same bits.
 *
 *   merge_sum s;  merge_top(s, lse) of all ranks;  then in rank order w = merge_weigh(s, lse) and o = fmaf(w, x, o) of
 *   those ranks that have something (lse > -inf or NaN);  at last merge_finish(o, merge_scale(s)) and merge_lse(s)
 * Sums are rounded as written: no compiler joins them with a product in one place and not in another. */
#ifndef KERNELS_CUDA_MERGE_ROW_CUH
#define KERNELS_CUDA_MERGE_ROW_CUH

#include <math.h>

struct merge_sum {
    float top = -INFINITY;
    float sum = 0.0f;
};

__device__ __forceinline__ float merge_canonical(float x)
{
    return isnan(x) ? __uint_as_float(0x7fc00000u) : x;
}

__device__ __forceinline__ void merge_top(merge_sum &s, float lse)
{
    s.top = lse > s.top ? lse : s.top;
}

__device__ __forceinline__ float merge_weigh(merge_sum &s, float lse)
{
    const float w = expf(lse - s.top);
    s.sum = __fadd_rn(s.sum, w);
    return w;
}

__device__ __forceinline__ float merge_scale(const merge_sum &s)
{
    return s.sum == 0.0f ? 0.0f : 1.0f / s.sum;
}

__device__ __forceinline__ float merge_finish(float o, float scale)
{
    return merge_canonical(__fmul_rn(o, scale));
}

__device__ __forceinline__ float merge_lse(const merge_sum &s)
{
    return s.sum == 0.0f ? -INFINITY : merge_canonical(__fadd_rn(s.top, logf(s.sum)));
}

#endif /* KERNELS_CUDA_MERGE_ROW_CUH */
