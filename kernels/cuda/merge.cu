/* One warp a row: every lane keeps its dims of o in registers while ranks are added in rank order, so that
 * every rank and run gives the same bits.  Reads each partial once; bound by memory. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_rotate.h"
#include "kernels/cuda/merge_row.cuh"
#include "kernels/page.h"

namespace {

constexpr int kWarp = 32;
constexpr int kRows = 8; /* warps a CTA */

/* Dim i of a lane: dims lie kWarp apart, or in neighbours, as cuda_rotate.h has them. */
template <int D>
__device__ __forceinline__ int dim_of(int lane, int i)
{
    return D == 0 ? lane + i * kWarp : lane * (D / kWarp) + i;
}

/* D 0: any, and o stays in the basis that it is in. */
template <int D>
__global__ void __launch_bounds__(kWarp *kRows) merge_kernel(const kern_merge_args a)
{
    constexpr int kDims = D == 0 ? KERN_MAX_HEAD_DIM / kWarp : D / kWarp;
    const int64_t row = (int64_t)blockIdx.x * kRows + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    const int64_t lse_at = (int64_t)a.rows * a.head_dim + row;
    cuda_rotation<D == 0 ? 64 : D> rotation = {};
    if constexpr (D != 0) {
        const int head = (int)(row % a.n_heads) / (a.n_heads / a.n_kv_heads);
        const kern_side *side = &a.formats[head].v;
        rotation = cuda_rotation_of<D>(side, side->signs);
    }
    cuda_after_previous();
    if (row >= a.rows) {
        return;
    }

    merge_sum s;
    for (int r = 0; r < a.n_ranks; r++) {
        merge_top(s, a.partials[r * a.rank_stride + lse_at]);
    }
    float o[kDims] = {};
    for (int r = 0; r < a.n_ranks; r++) {
        const float *part = a.partials + r * a.rank_stride;
        const float lse = part[lse_at];
        if (lse == -INFINITY) {
            continue; /* adds nothing, whatever its o holds */
        }
        const float w = merge_weigh(s, lse);
#pragma unroll
        for (int i = 0; i < kDims; i++) {
            const int d = dim_of<D>(lane, i);
            if (d < a.head_dim) {
                o[i] = fmaf(w, part[row * a.head_dim + d], o[i]);
            }
        }
    }
    const float scale = merge_scale(s);
#pragma unroll
    for (int i = 0; i < kDims; i++) {
        o[i] = merge_finish(o[i], scale);
    }
    if constexpr (D != 0) {
        cuda_rotate<D>(rotation, true, o);
    }
#pragma unroll
    for (int i = 0; i < kDims; i++) {
        const int d = dim_of<D>(lane, i);
        if (d < a.head_dim) {
            a.o[row * a.head_dim + (D != 0 && rotation.order != nullptr ? rotation.order[d] : d)] =
                o[i];
        }
    }
    if (a.lse != nullptr && lane == 0) {
        a.lse[row] = merge_lse(s);
    }
}

} // namespace

extern "C" base_status kern_cuda_merge(void *stream, const kern_merge_args *a)
{
    if (a->rows == 0) {
        return BASE_OK;
    }
    const auto s = static_cast<cudaStream_t>(stream);
    const dim3 grid((a->rows + kRows - 1) / kRows);
    if (a->formats == nullptr) {
        cuda_launch(merge_kernel<0>, grid, kWarp * kRows, s, *a);
    } else if (a->head_dim == 64) {
        cuda_launch(merge_kernel<64>, grid, kWarp * kRows, s, *a);
    } else {
        cuda_launch(merge_kernel<128>, grid, kWarp * kRows, s, *a);
    }
    return CUDA_LAUNCHED("merge");
}
