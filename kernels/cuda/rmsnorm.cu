/* One CTA a row, which is read twice: a row is small enough for the second read to hit L1 or L2. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_ops.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

__device__ float block_sum(float x)
{
    __shared__ float of_warp[kWarps];
    for (int step = 16; step > 0; step /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    if (threadIdx.x % 32 == 0) {
        of_warp[threadIdx.x / 32] = x;
    }
    __syncthreads(); /* of_warp is whole */
    float sum = 0.0f;
    for (int w = 0; w < kWarps; w++) {
        sum += of_warp[w];
    }
    return sum;
}

template <typename W>
__global__ void __launch_bounds__(kThreads) rmsnorm_kernel(const kern_rmsnorm_args a)
{
    const float *x = a.x + (int64_t)blockIdx.x * a.cols;
    const W *weight = static_cast<const W *>(a.weight);
    float *y = a.y + (int64_t)blockIdx.x * a.cols;

    float squares = 0.0f;
    for (int c = threadIdx.x; c < a.cols; c += kThreads) {
        squares = fmaf(x[c], x[c], squares);
    }
    const float scale = 1.0f / sqrtf(block_sum(squares) / a.cols + a.eps);
    for (int c = threadIdx.x; c < a.cols; c += kThreads) {
        y[c] = x[c] * scale * static_cast<float>(weight[c]);
    }
}

} // namespace

extern "C" base_status kern_cuda_rmsnorm(void *stream, const kern_rmsnorm_args *a)
{
    if (a->rows == 0) {
        return BASE_OK;
    }
    const auto s = static_cast<cudaStream_t>(stream);
    switch (a->dtype) {
    case BASE_F32: rmsnorm_kernel<float><<<a->rows, kThreads, 0, s>>>(*a); break;
    case BASE_F16: rmsnorm_kernel<__half><<<a->rows, kThreads, 0, s>>>(*a); break;
    case BASE_BF16: rmsnorm_kernel<__nv_bfloat16><<<a->rows, kThreads, 0, s>>>(*a); break;
    }
    return CUDA_LAUNCHED("rmsnorm");
}
