/* Sines and cosines once a step, in double; then one CTA a token, or where they are few, several that share its
 * heads: every head's pairs pass through registers once.  Products and sums round one by one, as on the CPU, so that
 * both give the same bits wherever their libraries' sines agree to f32. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/cuda_turn.h"

namespace {

constexpr int kThreads = 256;
constexpr int kFewTokens = 16;

__global__ void __launch_bounds__(kThreads) turns_kernel(const kern_turns_args a)
{
    const int half = a.head_dim / 2;
    const int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    cuda_after_previous();
    if (i >= (int64_t)a.n_tokens * half) {
        return;
    }
    double s;
    double c;
    sincos((double)a.positions[i / half] * (double)a.inv_freq[i % half], &s, &c);
    reinterpret_cast<float2 *>(a.turns)[i] = make_float2((float)c, (float)s);
}

__global__ void __launch_bounds__(kThreads) rope_kernel(const kern_rope_args a)
{
    const int half = a.head_dim / 2;
    const int64_t t = blockIdx.x;

    cuda_after_previous();
    const float2 *turns = reinterpret_cast<const float2 *>(a.turns) + t * half;
    float *token = a.x + t * a.x_stride;
    for (int i = blockIdx.y * kThreads + threadIdx.x; i < a.n_heads * half;
         i += gridDim.y * kThreads) {
        const int pair = i % half;
        float *x = token + i / half * a.head_dim + pair;
        const float x0 = x[0];
        const float x1 = x[half];
        x[0] = cuda_turned(x0, x1, turns[pair], false);
        x[half] = cuda_turned(x1, x0, turns[pair], true);
    }
}

} // namespace

extern "C" base_status kern_cuda_turns(void *stream, const kern_turns_args *a)
{
    const int64_t n = (int64_t)a->n_tokens * (a->head_dim / 2);
    if (n == 0) {
        return BASE_OK;
    }
    cuda_launch(turns_kernel, dim3(static_cast<unsigned>((n + kThreads - 1) / kThreads)), kThreads,
                static_cast<cudaStream_t>(stream), *a);
    return CUDA_LAUNCHED("turns");
}

extern "C" base_status kern_cuda_rope(void *stream, const kern_rope_args *a)
{
    if (a->n_tokens == 0) {
        return BASE_OK;
    }
    const int n_parts = (a->n_heads * (a->head_dim / 2) + kThreads - 1) / kThreads;
    cuda_launch(rope_kernel, dim3(a->n_tokens, a->n_tokens <= kFewTokens ? n_parts : 1), kThreads,
                static_cast<cudaStream_t>(stream), *a);
    return CUDA_LAUNCHED("rope");
}
