/* One warp a row, a CTA for several tokens of one head: what the side looks like is read once, each row passes
 * through registers once. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_rotate.h"

namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxTokens = 8; /* of one warp */

template <int D>
__device__ void row_store(const cuda_rotation<D> &r, bool inverse, const float *x, float *row)
{
    constexpr int E = cuda_rotation<D>::E;
    const int dim = threadIdx.x % 32 * E;
#pragma unroll
    for (int e = 0; e < E; e++) {
        row[inverse && r.order != nullptr ? r.order[dim + e] : dim + e] = x[e];
    }
}

template <int D>
__global__ void __launch_bounds__(kThreads) basis_kernel(const kern_basis_args a)
{
    constexpr int E = cuda_rotation<D>::E;
    const int head = blockIdx.x;
    const kern_head_format *format = &a.formats[head / (a.n_heads / a.n_kv_heads)];
    const kern_side *side = a.v_side ? &format->v : &format->k;
    const cuda_rotation<D> r = cuda_rotation_of<D>(side, cuda_query_signs(side));
    cuda_after_previous();
    if (!r.rotated && r.order == nullptr) {
        return;
    }
    const int step = gridDim.y * kWarps;
    for (int64_t t = blockIdx.y * kWarps + threadIdx.x / 32; t < a.n_tokens; t += step) {
        float *row = a.x + (t * a.n_heads + head) * D;
        float x[E];
        if (a.inverse) {
            cuda_rotation<D> plain = r;
            plain.order = nullptr; /* the row is in page order: order applies on the way out */
            cuda_row_load<D>(plain, row, x);
        } else {
            cuda_row_load<D>(r, row, x);
        }
        cuda_rotate<D>(r, a.inverse, x);
        __syncwarp(); /* the whole row is read before any of it is written */
        row_store<D>(r, a.inverse, x, row);
    }
}

} // namespace

extern "C" base_status kern_cuda_basis(void *stream, const kern_basis_args *a)
{
    if (a->n_tokens == 0) {
        return BASE_OK;
    }
    const auto s = static_cast<cudaStream_t>(stream);
    constexpr int kPerCta = kWarps * kMaxTokens;
    const int n_few =
        (a->n_tokens + kWarps - 1) / kWarps; /* CTAs when every warp takes one token */
    const int n_many = (a->n_tokens + kPerCta - 1) / kPerCta;
    const int height = n_few <= 64 ? n_few : n_many < 65535 ? n_many : 65535;
    const dim3 grid(a->n_heads, height);

    if (a->head_dim == 64) {
        cuda_launch(basis_kernel<64>, grid, kThreads, s, *a);
    } else {
        cuda_launch(basis_kernel<128>, grid, kThreads, s, *a);
    }
    return CUDA_LAUNCHED("basis");
}
