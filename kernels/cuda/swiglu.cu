/* Four neighbours at a time where they are whole, over a grid that strides; bound by memory. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxCtas = 4096; /* enough to fill any GPU; the rest strides */

__device__ float activate(float gate, float up)
{
    return gate / (1.0f + expf(-gate)) * up;
}

__device__ float4 activate(float4 gate, float4 up)
{
    return make_float4(activate(gate.x, up.x), activate(gate.y, up.y), activate(gate.z, up.z),
                       activate(gate.w, up.w));
}

/* n in V. */
template <typename V>
__global__ void __launch_bounds__(kThreads)
    swiglu_kernel(const V *gate, const V *up, V *y, const int64_t n)
{
    cuda_after_previous();
    const int64_t step = (int64_t)gridDim.x * kThreads;
    for (int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x; i < n; i += step) {
        y[i] = activate(gate[i], up[i]);
    }
}

template <typename V>
void swiglu(cudaStream_t stream, const kern_swiglu_args &a, int64_t n)
{
    const int64_t n_ctas = (n + kThreads - 1) / kThreads;
    cuda_launch(swiglu_kernel<V>,
                dim3(static_cast<unsigned>(n_ctas < kMaxCtas ? n_ctas : kMaxCtas)), kThreads,
                stream, reinterpret_cast<const V *>(a.gate), reinterpret_cast<const V *>(a.up),
                reinterpret_cast<V *>(a.y), n);
}

} // namespace

extern "C" base_status kern_cuda_swiglu(void *stream, const kern_swiglu_args *a)
{
    const int64_t n = (int64_t)a->n_tokens * a->width;
    const auto s = static_cast<cudaStream_t>(stream);
    if (n == 0) {
        return BASE_OK;
    }
    if (n % 4 == 0) {
        swiglu<float4>(s, *a, n / 4);
    } else {
        swiglu<float>(s, *a, n);
    }
    return CUDA_LAUNCHED("swiglu");
}
