/* One CTA a token, or where they are few, several that share its heads: sines and cosines in double once, kept in
 * shared memory, then every head's pairs pass through registers once.  Products and sums round one by one, as on the CPU, so that both give the same bits wherever
 * their libraries' sines agree to f32. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/page.h"

namespace {

constexpr int kThreads = 256;
constexpr int kFewTokens = 16;
constexpr int kMaxPairs = KERN_MAX_HEAD_DIM / 2;

__global__ void __launch_bounds__(kThreads) rope_kernel(const kern_rope_args a)
{
    __shared__ float2 turn[kMaxPairs]; /* cosine, sine */
    const int half = a.head_dim / 2;
    const int64_t t = blockIdx.x;

    cuda_after_previous();
    if (threadIdx.x < half) {
        double s;
        double c;
        sincos((double)a.positions[t] * (double)a.inv_freq[threadIdx.x], &s, &c);
        turn[threadIdx.x] = make_float2((float)c, (float)s);
    }
    __syncthreads(); /* turn is whole */

    float *token = a.x + t * a.x_stride;
    for (int i = blockIdx.y * kThreads + threadIdx.x; i < a.n_heads * half;
         i += gridDim.y * kThreads) {
        const int pair = i % half;
        float *x = token + i / half * a.head_dim + pair;
        const float2 cs = turn[pair];
        const float x0 = x[0];
        const float x1 = x[half];
        x[0] = __fsub_rn(__fmul_rn(x0, cs.x), __fmul_rn(x1, cs.y));
        x[half] = __fadd_rn(__fmul_rn(x1, cs.x), __fmul_rn(x0, cs.y));
    }
}

} // namespace

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
