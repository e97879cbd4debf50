/* One warp a row: every lane keeps its dims of o in registers while ranks are added in rank order, so that
 * every rank and run gives the same bits.  Reads each partial once; bound by memory. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/page.h"

namespace {

constexpr int kWarp = 32;
constexpr int kRows = 8; /* warps a CTA */
constexpr int kDims = KERN_MAX_HEAD_DIM / kWarp;

__device__ float canonical(float x)
{
    return isnan(x) ? __uint_as_float(0x7fc00000u) : x;
}

__global__ void __launch_bounds__(kWarp *kRows) merge_kernel(const kern_merge_args a)
{
    const int64_t row = (int64_t)blockIdx.x * kRows + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    if (row >= a.rows) {
        return;
    }
    const int64_t lse_at = (int64_t)a.rows * a.head_dim + row;

    float top = -INFINITY;
    for (int r = 0; r < a.n_ranks; r++) {
        const float lse = a.partials[r * a.rank_stride + lse_at];
        top = lse > top ? lse : top;
    }
    float o[kDims] = {};
    float sum = 0.0f;
    for (int r = 0; r < a.n_ranks; r++) {
        const float *part = a.partials + r * a.rank_stride;
        const float lse = part[lse_at];
        if (lse == -INFINITY) {
            continue; /* adds nothing, whatever its o holds */
        }
        const float w = expf(lse - top);
        sum += w;
#pragma unroll
        for (int i = 0; i < kDims; i++) {
            const int d = lane + i * kWarp;
            if (d < a.head_dim) {
                o[i] = fmaf(w, part[row * a.head_dim + d], o[i]);
            }
        }
    }
    const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;
#pragma unroll
    for (int i = 0; i < kDims; i++) {
        const int d = lane + i * kWarp;
        if (d < a.head_dim) {
            a.o[row * a.head_dim + d] = canonical(o[i] * scale);
        }
    }
    if (a.lse != nullptr && lane == 0) {
        a.lse[row] = sum == 0.0f ? -INFINITY : canonical(top + logf(sum));
    }
}

} // namespace

extern "C" base_status kern_cuda_merge(void *stream, const kern_merge_args *a)
{
    if (a->rows == 0) {
        return BASE_OK;
    }
    const int n_ctas = (a->rows + kRows - 1) / kRows;
    merge_kernel<<<n_ctas, kWarp * kRows, 0, static_cast<cudaStream_t>(stream)>>>(*a);
    return CUDA_LAUNCHED("merge");
}
