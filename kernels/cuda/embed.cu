/* A copy that widens: eight elements a thread where rows allow it, so that every access is 16 bytes. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"

namespace {

constexpr int kThreads = 128;

/* Of the table; below 0: its row is another's. */
__device__ int64_t row_of(const kern_embed_args &a, int64_t t)
{
    const int named = a.ids[t];
    const int id = named >= 0 ? named : a.recent[-1 - named];
    return a.end > 0 && id >= a.end ? -1 : id - a.begin;
}

template <typename W>
__global__ void __launch_bounds__(kThreads) embed_wide(const kern_embed_args a)
{
    cuda_after_previous();
    const int c = (blockIdx.x * kThreads + threadIdx.x) * 8;
    if (c >= a.width) {
        return;
    }
    const int64_t t = blockIdx.y;
    const int64_t row = row_of(a, t);
    float x[8] = {};
    if (row >= 0) {
        cuda_load8(static_cast<const W *>(a.table) + row * a.width + c, x);
    }
    cuda_store8(a.y + t * a.width + c, x);
}

template <typename W>
__global__ void __launch_bounds__(kThreads) embed_any(const kern_embed_args a)
{
    cuda_after_previous();
    const int c = blockIdx.x * kThreads + threadIdx.x;
    if (c < a.width) {
        const int64_t t = blockIdx.y;
        const int64_t row = row_of(a, t);
        const W *table = static_cast<const W *>(a.table);
        a.y[t * a.width + c] = row < 0 ? 0.0f : cuda_f32(table[row * a.width + c]);
    }
}

/* Grids are at most 65535 high: longer lists go in slices. */
template <typename W>
void embed(cudaStream_t stream, kern_embed_args a)
{
    constexpr int kMaxRows = 65535;
    const bool wide = a.width % 8 == 0;
    const int per_row = wide ? a.width / 8 : a.width;
    const unsigned n_ctas = (per_row + kThreads - 1) / kThreads;

    while (a.n_tokens > 0) {
        const int n = a.n_tokens < kMaxRows ? a.n_tokens : kMaxRows;
        if (wide) {
            cuda_launch(embed_wide<W>, dim3(n_ctas, n), kThreads, stream, a);
        } else {
            cuda_launch(embed_any<W>, dim3(n_ctas, n), kThreads, stream, a);
        }
        a.ids += n;
        a.y += (int64_t)n * a.width;
        a.n_tokens -= n;
    }
}

} // namespace

extern "C" base_status kern_cuda_embed(void *stream, const kern_embed_args *a)
{
    const auto s = static_cast<cudaStream_t>(stream);
    switch (a->dtype) {
    case BASE_F32: embed<float>(s, *a); break;
    case BASE_F16: embed<__half>(s, *a); break;
    case BASE_BF16: embed<__nv_bfloat16>(s, *a); break;
    }
    return CUDA_LAUNCHED("embed");
}
