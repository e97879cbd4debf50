/* Passes over x before and over y after a product; bound by memory. */
#include "kernels/cuda/gemm_rows.h"

#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_launch.h"

namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxCtas = 4096;

__device__ __nv_bfloat16 nearest(float x, __nv_bfloat16)
{
    return __float2bfloat16_rn(x);
}

__device__ __half nearest(float x, __half)
{
    return cuda_f16_nearest(x);
}

template <typename W>
__device__ void store8(const W w[8], W *out)
{
    uint4 raw;
    memcpy(&raw, w, sizeof raw);
    *reinterpret_cast<uint4 *>(out) = raw;
}

/* n_wide pieces of eight; rest NULL: what rounding leaves over is dropped. */
template <typename W>
__global__ void __launch_bounds__(kThreads)
    round_kernel(const float *x, const int64_t x_stride, const int k, const int64_t n_wide, W *out,
                 W *rest)
{
    cuda_after_previous();
    const int64_t step = (int64_t)gridDim.x * kThreads;
    for (int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x; i < n_wide; i += step) {
        const int64_t row = i * 8 / k;
        const float *from = x + row * x_stride + (i * 8 - row * k);
        float in[8];
        if (x_stride % 4 == 0) {
            cuda_load8(from, in);
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++) {
                in[e] = from[e];
            }
        }
        W high[8];
        W low[8];
#pragma unroll
        for (int e = 0; e < 8; e++) {
            high[e] = nearest(in[e], W());
            const float left = in[e] - cuda_f32(high[e]); /* NaN: high says all, infinity or NaN */
            low[e] = nearest(isnan(left) ? 0.0f : left, W());
        }
        store8(high, out + i * 8);
        if (rest != nullptr) {
            store8(low, rest + i * 8);
        }
    }
}

template <typename W>
void round_rows(cudaStream_t stream, const kern_gemm_args &a, bool split, void *out)
{
    const int64_t n_wide = (int64_t)a.m * a.k / 8;
    const int64_t n_ctas = (n_wide + kThreads - 1) / kThreads;
    W *high = static_cast<W *>(out);
    W *low = split ? high + (int64_t)a.m * a.k : nullptr;
    cuda_launch(round_kernel<W>, dim3(static_cast<unsigned>(n_ctas < kMaxCtas ? n_ctas : kMaxCtas)),
                kThreads, stream, a.x, a.x_stride, a.k, n_wide, high, low);
}

template <typename W>
__global__ void __launch_bounds__(kThreads) join_kernel(const kern_gemm_args a, const float *sums)
{
    const int n = blockIdx.x * kThreads + threadIdx.x;
    const W *bias = static_cast<const W *>(a.bias);
    const float shift = bias != nullptr && n < a.n ? cuda_f32(bias[n]) : 0.0f;
    cuda_after_previous();
    if (n >= a.n) {
        return;
    }
    for (int64_t m = blockIdx.y; m < a.m; m += gridDim.y) {
        float *y = a.y + m * a.y_stride + n;
        const float sum = sums[m * a.n + n] + sums[(a.m + m) * a.n + n] + shift;
        *y = a.accumulate ? *y + sum : sum;
    }
}

template <typename W>
__global__ void __launch_bounds__(kThreads) add_bias_kernel(const kern_gemm_args a)
{
    const int n = blockIdx.x * kThreads + threadIdx.x;
    const float shift = n < a.n ? cuda_f32(static_cast<const W *>(a.bias)[n]) : 0.0f;
    cuda_after_previous();
    if (n >= a.n) {
        return;
    }
    for (int64_t m = blockIdx.y; m < a.m; m += gridDim.y) {
        a.y[m * a.y_stride + n] += shift;
    }
}

dim3 grid_of(const kern_gemm_args &a)
{
    return dim3((a.n + kThreads - 1) / kThreads, a.m < 1024 ? a.m : 1024);
}

} // namespace

void gemm_rows_round(cudaStream_t stream, const kern_gemm_args &a, bool split, void *out)
{
    if (a.dtype == BASE_BF16) {
        round_rows<__nv_bfloat16>(stream, a, split, out);
    } else {
        round_rows<__half>(stream, a, split, out);
    }
}

void gemm_rows_join(cudaStream_t stream, const kern_gemm_args &a, const float *sums)
{
    if (a.dtype == BASE_BF16) {
        cuda_launch(join_kernel<__nv_bfloat16>, grid_of(a), kThreads, stream, a, sums);
    } else {
        cuda_launch(join_kernel<__half>, grid_of(a), kThreads, stream, a, sums);
    }
}

void gemm_rows_add_bias(cudaStream_t stream, const kern_gemm_args &a)
{
    switch (a.dtype) {
    case BASE_F32: cuda_launch(add_bias_kernel<float>, grid_of(a), kThreads, stream, a); break;
    case BASE_F16: cuda_launch(add_bias_kernel<__half>, grid_of(a), kThreads, stream, a); break;
    case BASE_BF16:
        cuda_launch(add_bias_kernel<__nv_bfloat16>, grid_of(a), kThreads, stream, a);
        break;
    }
}
