/* A thread keeps its columns and walks down the rows, so that bias is read once a CTA; bound by memory. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"

namespace {

constexpr int kThreads = 128;
constexpr int kMaxHeight = 1024; /* CTAs above each other: enough to fill any GPU */

template <typename W>
__global__ void __launch_bounds__(kThreads) bias_wide(const kern_bias_args a)
{
    const int c = (blockIdx.x * kThreads + threadIdx.x) * 8;
    float bias[8] = {};
    if (c < a.cols) {
        cuda_load8(static_cast<const W *>(a.bias) + c, bias);
    }
    cuda_after_previous();
    if (c >= a.cols) {
        return;
    }
    for (int64_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
        float x[8];
        cuda_load8(a.x + r * a.cols + c, x);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            x[i] += bias[i];
        }
        cuda_store8(a.x + r * a.cols + c, x);
    }
}

template <typename W>
__global__ void __launch_bounds__(kThreads) bias_any(const kern_bias_args a)
{
    cuda_after_previous();
    const int c = blockIdx.x * kThreads + threadIdx.x;
    if (c >= a.cols) {
        return;
    }
    const float bias = cuda_f32(static_cast<const W *>(a.bias)[c]);
    for (int64_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
        a.x[r * a.cols + c] += bias;
    }
}

template <typename W>
void bias(cudaStream_t stream, const kern_bias_args &a)
{
    const bool wide = a.cols % 8 == 0;
    const int per_row = wide ? a.cols / 8 : a.cols;
    const unsigned height = a.rows < kMaxHeight ? a.rows : kMaxHeight;
    const dim3 grid((per_row + kThreads - 1) / kThreads, height);

    if (wide) {
        cuda_launch(bias_wide<W>, grid, kThreads, stream, a);
    } else {
        cuda_launch(bias_any<W>, grid, kThreads, stream, a);
    }
}

} // namespace

extern "C" base_status kern_cuda_bias(void *stream, const kern_bias_args *a)
{
    if (a->rows == 0) {
        return BASE_OK;
    }
    const auto s = static_cast<cudaStream_t>(stream);
    switch (a->dtype) {
    case BASE_F32: bias<float>(s, *a); break;
    case BASE_F16: bias<__half>(s, *a); break;
    case BASE_BF16: bias<__nv_bfloat16>(s, *a); break;
    }
    return CUDA_LAUNCHED("bias");
}
