/* One CTA a row.  A row of whole 16-byte pieces stays in registers between its sum and its product; any other is
 * read twice and is small enough for the second read to hit L1 or L2. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_ops.h"

namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kPiece = 4;
constexpr int kMaxPieces = 8; /* a thread: rows of up to 16384 */

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
__global__ void __launch_bounds__(kThreads) rmsnorm_any(const kern_rmsnorm_args a)
{
    cuda_after_previous();
    const float *x = a.x + (int64_t)blockIdx.x * a.cols;
    const W *weight = static_cast<const W *>(a.weight);
    float *y = a.y + (int64_t)blockIdx.x * a.cols;

    float squares = 0.0f;
    for (int c = threadIdx.x; c < a.cols; c += kThreads) {
        squares = fmaf(x[c], x[c], squares);
    }
    const float scale = 1.0f / sqrtf(block_sum(squares) / a.cols + a.eps);
    for (int c = threadIdx.x; c < a.cols; c += kThreads) {
        y[c] = x[c] * scale * cuda_f32(weight[c]);
    }
}

template <typename W, int kPieces>
__global__ void __launch_bounds__(kThreads) rmsnorm_wide(const kern_rmsnorm_args a)
{
    const W *weight = static_cast<const W *>(a.weight);
    const int64_t row = (int64_t)blockIdx.x * a.cols;
    float x[kPieces][kPiece] = {};
    float w[kPieces][kPiece] = {};

#pragma unroll
    for (int i = 0; i < kPieces; i++) { /* nobody writes the weight */
        const int c = (i * kThreads + threadIdx.x) * kPiece;
        if (c < a.cols) {
            cuda_load4(weight + c, w[i]);
        }
    }
    cuda_after_previous();
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kPieces; i++) {
        const int c = (i * kThreads + threadIdx.x) * kPiece;
        if (c < a.cols) {
            cuda_load4(a.x + row + c, x[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < kPieces; i++) {
#pragma unroll
        for (int e = 0; e < kPiece; e++) {
            squares = fmaf(x[i][e], x[i][e], squares);
        }
    }
    const float scale = 1.0f / sqrtf(block_sum(squares) / a.cols + a.eps);
#pragma unroll
    for (int i = 0; i < kPieces; i++) {
        const int c = (i * kThreads + threadIdx.x) * kPiece;
        if (c < a.cols) {
            *reinterpret_cast<float4 *>(a.y + row + c) =
                make_float4(x[i][0] * scale * w[i][0], x[i][1] * scale * w[i][1],
                            x[i][2] * scale * w[i][2], x[i][3] * scale * w[i][3]);
        }
    }
}

template <typename W>
void rmsnorm(cudaStream_t stream, const kern_rmsnorm_args &a)
{
    const dim3 grid(a.rows);
    const int n_pieces = (a.cols + kThreads * kPiece - 1) / (kThreads * kPiece);
    if (a.cols % kPiece != 0 || n_pieces > kMaxPieces) {
        cuda_launch(rmsnorm_any<W>, grid, kThreads, stream, a);
    } else if (n_pieces == 1) {
        cuda_launch(rmsnorm_wide<W, 1>, grid, kThreads, stream, a);
    } else if (n_pieces == 2) {
        cuda_launch(rmsnorm_wide<W, 2>, grid, kThreads, stream, a);
    } else if (n_pieces <= 4) {
        cuda_launch(rmsnorm_wide<W, 4>, grid, kThreads, stream, a);
    } else {
        cuda_launch(rmsnorm_wide<W, kMaxPieces>, grid, kThreads, stream, a);
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
    case BASE_F32: rmsnorm<float>(s, *a); break;
    case BASE_F16: rmsnorm<__half>(s, *a); break;
    case BASE_BF16: rmsnorm<__nv_bfloat16>(s, *a); break;
    }
    return CUDA_LAUNCHED("rmsnorm");
}
