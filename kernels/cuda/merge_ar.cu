/* One warp a row, as merge.cu: all ranks' sums instead of all ranks' rows. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/merge_ar.h"
#include "kernels/cuda/merge_row.cuh"

namespace {

constexpr int kWarp = 32;
constexpr int kRows = 8; /* warps a CTA */

__global__ void __launch_bounds__(kWarp *kRows)
    weigh_kernel(float *part, const float *top, int rows, int head_dim)
{
    cuda_after_previous();
    const int64_t row = (int64_t)blockIdx.x * kRows + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    if (row >= rows) {
        return;
    }
    float *lse_at = part + (int64_t)rows * head_dim + row;
    const float lse = *lse_at;
    const bool empty = lse == -INFINITY; /* adds nothing, whatever its o holds */
    const float w = empty ? 0.0f : expf(lse - top[row]);
    for (int d = lane; d < head_dim; d += kWarp) {
        float *o = part + row * head_dim + d;
        *o = empty ? 0.0f : *o * w;
    }
    __syncwarp(); /* all have read lse */
    if (lane == 0) {
        *lse_at = w;
    }
}

__global__ void __launch_bounds__(kWarp *kRows)
    finish_kernel(const float *sums, const float *top, const kern_merge_args a)
{
    cuda_after_previous();
    const int64_t row = (int64_t)blockIdx.x * kRows + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    if (row >= a.rows) {
        return;
    }
    merge_sum s;
    s.top = top[row];
    s.sum = sums[(int64_t)a.rows * a.head_dim + row];
    for (int d = lane; d < a.head_dim; d += kWarp) {
        const int64_t at = row * a.head_dim + d;
        a.o[at] = merge_finish(sums[at], merge_scale(s));
    }
    if (a.lse != nullptr && lane == 0) {
        a.lse[row] = merge_lse(s);
    }
}

dim3 grid_of(int32_t rows)
{
    return dim3((rows + kRows - 1) / kRows);
}

} // namespace

extern "C" base_status cuda_merge_ar_weigh(cudaStream_t stream, float *part, const float *top,
                                           int32_t rows, int32_t head_dim)
{
    cuda_launch(weigh_kernel, grid_of(rows), kWarp * kRows, stream, part, top, rows, head_dim);
    return CUDA_LAUNCHED("weighing partials");
}

extern "C" base_status cuda_merge_ar_finish(cudaStream_t stream, const float *sums,
                                            const float *top, const kern_merge_args *a)
{
    cuda_launch(finish_kernel, grid_of(a->rows), kWarp * kRows, stream, sums, top, *a);
    return CUDA_LAUNCHED("dividing sums");
}
