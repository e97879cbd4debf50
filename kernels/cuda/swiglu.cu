/* Element by element over a grid that strides; bound by memory. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_ops.h"

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxCtas = 4096; /* enough to fill any GPU; the rest strides */

__global__ void __launch_bounds__(kThreads)
    swiglu_kernel(const float *gate, const float *up, float *y, int64_t n)
{
    const int64_t step = (int64_t)gridDim.x * kThreads;
    for (int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x; i < n; i += step) {
        const float g = gate[i];
        y[i] = g / (1.0f + expf(-g)) * up[i];
    }
}

} // namespace

extern "C" base_status kern_cuda_swiglu(void *stream, const kern_swiglu_args *a)
{
    const int64_t n = (int64_t)a->n_tokens * a->width;
    if (n == 0) {
        return BASE_OK;
    }
    const int64_t n_ctas = (n + kThreads - 1) / kThreads;
    swiglu_kernel<<<static_cast<unsigned>(n_ctas < kMaxCtas ? n_ctas : kMaxCtas), kThreads, 0,
                    static_cast<cudaStream_t>(stream)>>>(a->gate, a->up, a->y, n);
    return CUDA_LAUNCHED("swiglu");
}
