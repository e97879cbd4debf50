/* Few rows of x times w: bound by the bytes of w, which are read once.
 *
 * A group of 1 to 8 warps takes kRows rows of w and shares their columns, so that small matrices fill the GPU too;
 * a lane keeps kAhead steps of 16-byte loads under way.  x comes from L1, where the rows of w do not go. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_gemm.h"
#include "kernels/cuda/cuda_launch.h"

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kWide = 8;           /* elements a lane takes at once */
constexpr int kEnoughWarps = 2048; /* in a grid: about 16 on each SM */

/* Eight elements of w as loaded. */
template <typename W>
struct raw8 {
    uint4 part[kWide * sizeof(W) / sizeof(uint4)];
};

template <typename W>
__device__ __forceinline__ raw8<W> load_once(const W *p)
{
    raw8<W> raw;
#pragma unroll
    for (size_t i = 0; i < sizeof raw / sizeof raw.part[0]; i++) {
        uint4 v;
        asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(reinterpret_cast<const uint4 *>(p) + i));
        raw.part[i] = v;
    }
    return raw;
}

template <typename W>
__device__ __forceinline__ void widen(const raw8<W> &raw, float out[kWide])
{
    W w[kWide];
    memcpy(w, &raw, sizeof w);
#pragma unroll
    for (int i = 0; i < kWide; i++) {
        out[i] = cuda_f32(w[i]);
    }
}

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        x += __shfl_xor_sync(0xffffffffu, x, step);
    }
    return x;
}

template <typename W>
__device__ void put(const kern_gemm_args &a, int64_t m, int64_t n, float sum)
{
    float *y = a.y + m * a.y_stride + n;
    if (a.bias != nullptr) {
        sum += cuda_f32(static_cast<const W *>(a.bias)[n]);
    }
    *y = a.accumulate ? *y + sum : sum;
}

/* kM >= a.m rows of x; rows beyond a.m or a.n repeat the last one and are not stored. */
template <typename W, int kM, int kRows, int kAhead>
__global__ void __launch_bounds__(kThreads) gemv_kernel(const kern_gemm_args a, const int n_parts)
{
    __shared__ float of_warp[kWarps][kM * kRows];
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int64_t n0 = ((int64_t)blockIdx.x * (kWarps / n_parts) + warp / n_parts) * kRows;
    const W *w[kRows];
    const float *x[kM];
    float sum[kM][kRows] = {};

#pragma unroll
    for (int r = 0; r < kRows; r++) {
        w[r] = static_cast<const W *>(a.w) + (n0 + r < a.n ? n0 + r : a.n - 1) * a.k;
    }
#pragma unroll
    for (int m = 0; m < kM; m++) {
        x[m] = a.x + (int64_t)(m < a.m ? m : a.m - 1) * a.x_stride;
    }
    const int step = n_parts * 32 * kWide;
    raw8<W> raw[kAhead][kRows];
    const auto load = [&](int k) {
#pragma unroll
        for (int i = 0; i < kAhead; i++) {
#pragma unroll
            for (int r = 0; r < kRows; r++) {
                if (k + i * step < a.k) {
                    raw[i][r] = load_once(w[r] + k + i * step);
                }
            }
        }
    };
    int k = (warp % n_parts * 32 + lane) * kWide;
    load(k);
    cuda_after_previous(); /* nobody writes w; x and y are touched from here on */
    while (k < a.k) {
#pragma unroll
        for (int i = 0; i < kAhead; i++) {
            if (k + i * step >= a.k) {
                break;
            }
            float wide[kRows][kWide];
#pragma unroll
            for (int r = 0; r < kRows; r++) {
                widen<W>(raw[i][r], wide[r]);
            }
#pragma unroll
            for (int m = 0; m < kM; m++) {
                float v[kWide];
                cuda_load8(x[m] + k + i * step, v);
#pragma unroll
                for (int r = 0; r < kRows; r++) {
#pragma unroll
                    for (int e = 0; e < kWide; e++) {
                        sum[m][r] = fmaf(v[e], wide[r][e], sum[m][r]);
                    }
                }
            }
        }
        k += kAhead * step;
        load(k);
    }
#pragma unroll
    for (int m = 0; m < kM; m++) {
#pragma unroll
        for (int r = 0; r < kRows; r++) {
            const float total = warp_sum(sum[m][r]);
            if (lane == 0) {
                of_warp[warp][m * kRows + r] = total;
            }
        }
    }
    __syncthreads(); /* every warp's sums are there */
    if (warp % n_parts != 0 || lane >= kM * kRows) {
        return;
    }
    float total = 0.0f;
    for (int part = 0; part < n_parts; part++) {
        total += of_warp[warp + part][lane];
    }
    const int m = lane / kRows;
    const int64_t n = n0 + lane % kRows;
    if (m < a.m && n < a.n) {
        put<W>(a, m, n, total);
    }
}

template <typename W, int kM, int kRows, int kAhead>
void gemv(cudaStream_t stream, const kern_gemm_args &a)
{
    const int n_groups = (a.n + kRows - 1) / kRows;
    int n_parts = 1;
    while (n_parts < kWarps && n_groups * n_parts < kEnoughWarps && a.k > n_parts * 32 * kWide) {
        n_parts *= 2;
    }
    const int per_cta = kWarps / n_parts;
    const unsigned n_ctas = (n_groups + per_cta - 1) / per_cta;
    cuda_launch(gemv_kernel<W, kM, kRows, kAhead>, dim3(n_ctas), kThreads, stream, a, n_parts);
}

template <typename W>
void gemv_of(cudaStream_t stream, const kern_gemm_args &a)
{
    if (a.m == 1) {
        gemv<W, 1, 2, 4>(stream, a);
    } else if (a.m == 2) {
        gemv<W, 2, 2, 4>(stream, a);
    } else {
        gemv<W, CUDA_GEMV_ROWS, 4, 2>(stream, a);
    }
}

/* A warp an element of y. */
template <typename W>
__global__ void __launch_bounds__(kThreads) plain_kernel(const kern_gemm_args a)
{
    const int lane = threadIdx.x % 32;
    const int64_t n = (int64_t)blockIdx.x * kWarps + threadIdx.x / 32;
    if (n >= a.n) {
        return;
    }
    const W *w = static_cast<const W *>(a.w) + n * a.k;
    for (int64_t m = blockIdx.y; m < a.m; m += gridDim.y) {
        const float *x = a.x + m * a.x_stride;
        float sum = 0.0f;
        for (int k = lane; k < a.k; k += 32) {
            sum = fmaf(x[k], cuda_f32(w[k]), sum);
        }
        sum = warp_sum(sum);
        if (lane == 0) {
            put<W>(a, m, n, sum);
        }
    }
}

template <typename W>
void plain_of(cudaStream_t stream, const kern_gemm_args &a)
{
    const dim3 grid((a.n + kWarps - 1) / kWarps, a.m < 65535 ? a.m : 65535);
    plain_kernel<W><<<grid, kThreads, 0, stream>>>(a);
}

} // namespace

extern "C" base_status cuda_gemv(void *stream, const kern_gemm_args *a)
{
    const auto s = static_cast<cudaStream_t>(stream);
    switch (a->dtype) {
    case BASE_F32: gemv_of<float>(s, *a); break;
    case BASE_F16: gemv_of<__half>(s, *a); break;
    case BASE_BF16: gemv_of<__nv_bfloat16>(s, *a); break;
    }
    return CUDA_LAUNCHED("gemv");
}

extern "C" base_status cuda_gemm_plain(void *stream, const kern_gemm_args *a)
{
    const auto s = static_cast<cudaStream_t>(stream);
    switch (a->dtype) {
    case BASE_F32: plain_of<float>(s, *a); break;
    case BASE_F16: plain_of<__half>(s, *a); break;
    case BASE_BF16: plain_of<__nv_bfloat16>(s, *a); break;
    }
    return CUDA_LAUNCHED("plain gemm");
}
