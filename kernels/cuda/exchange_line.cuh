/* kernels/cuda/exchange_line.cuh - lines of CUDA_EXCHANGE_LINE words: what a warp exchanges where there are no rows.
 *
 * A line travels as a row of merge does, without an lse (exchange_wire.cuh): lane i has words 4i .. 4i + 3. */
#ifndef KERNELS_CUDA_EXCHANGE_LINE_CUH
#define KERNELS_CUDA_EXCHANGE_LINE_CUH

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_rotate.h"
#include "kernels/cuda/exchange_window.cuh"

namespace exchange {

constexpr int kLineElems = CUDA_EXCHANGE_LINE / kWarp; /* of a lane */
constexpr int kLineMaxWarps = 8; /* a CTA; two of these fit an SM, so MAX_ROWS lines fit 128 SMs */

__device__ __forceinline__ int own_line()
{
    return blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp;
}

/* A lane's words of a line that has n_left of them, others 0.  aligned: to 16 bytes. */
__device__ __forceinline__ void load_line(const float *line, int n_left, bool aligned,
                                          float (&x)[kLineElems])
{
    const int first = threadIdx.x % kWarp * kLineElems;
    if (aligned && first + kLineElems <= n_left) {
        const float4 v = *reinterpret_cast<const float4 *>(line + first);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
        return;
    }
#pragma unroll
    for (int e = 0; e < kLineElems; e++) {
        x[e] = first + e < n_left ? line[first + e] : 0.0f;
    }
}

__device__ __forceinline__ void store_line(float *line, int n_left, bool aligned,
                                           const float (&x)[kLineElems])
{
    const int first = threadIdx.x % kWarp * kLineElems;
    if (aligned && first + kLineElems <= n_left) {
        *reinterpret_cast<float4 *>(line + first) = make_float4(x[0], x[1], x[2], x[3]);
        return;
    }
#pragma unroll
    for (int e = 0; e < kLineElems; e++) {
        if (first + e < n_left) {
            line[first + e] = x[e];
        }
    }
}

/* A warp's end of a line: where its words go in the windows of all ranks, and come in its own.  A rank sends to itself
 * too, so that nothing is done otherwise for one of them. */
template <class Wire, int N, int kUnitBytes>
struct line_end {
    char *to[N]; /* this rank's words, first those of the next rank */
    char *from;  /* rank 0's words here */
    int stride;  /* to the next rank's */
    int n_ranks;

    /* In the first buffer. */
    __device__ __forceinline__ line_end(const end &a, int unit)
    {
        n_ranks = a.n_ranks;
        stride = a.max_units * kUnitBytes;
        from = a.unit(a.rank, 0, unit, kUnitBytes);
#pragma unroll
        for (int k = 0; k < N; k++) {
            to[k] = a.unit(k + 1 < a.n_ranks ? a.after(k + 1) : a.rank, a.rank, unit, kUnitBytes);
        }
    }
    __device__ __forceinline__ void go_on(int n_bytes)
    {
        from += n_bytes;
#pragma unroll
        for (int k = 0; k < N; k++) {
            to[k] += n_bytes;
        }
    }
    /* The same to all. */
    __device__ __forceinline__ void send(const float (&x)[kLineElems], uint32_t turn) const
    {
#pragma unroll
        for (int k = 0; k < N; k++) {
            if (k < n_ranks) {
                Wire::put(to[k], threadIdx.x % kWarp, x, turn);
            }
        }
    }
    /* Polls until the lines of all ranks have come.  False in all lanes: a peer was lost.  What is above n_ranks in the
     * template is rank 0 again, since loads without a condition are under way at once. */
    __device__ __forceinline__ bool receive(patience p, uint32_t turn,
                                            float (&x)[N][kLineElems]) const
    {
        const int lane = threadIdx.x % kWarp;
        bool gave_up = false;
        while (!gave_up) {
            typename Wire::seen seen[N];
            int missing = -1;
#pragma unroll
            for (int r = 0; r < N; r++) {
                Wire::look(from + (r < n_ranks ? r * stride : 0), lane, &seen[r]);
            }
#pragma unroll
            for (int r = 0; r < N; r++) {
                if (!Wire::take(seen[r], turn, x[r])) {
                    missing = r < n_ranks ? r : 0;
                }
            }
            if (missing < 0) {
                break;
            }
            gave_up = !p.lasts(missing);
        }
        if (__any_sync(CUDA_WARP_ALL, gave_up)) {
            return false;
        }
#pragma unroll
        for (int r = 0; r < N; r++) {
            if (r < n_ranks) {
                Wire::wipe(from + r * stride, lane);
            }
        }
        return true;
    }
};

/* A warp a line, on as many SMs as there are. */
template <class Job>
base_status launch_lines(void (*kernel)(Job), int n_lines, cudaStream_t stream, const Job &j)
{
    const int wanted = (n_lines + 127) / 128;
    const int n_warps = wanted < kLineMaxWarps ? wanted : kLineMaxWarps;
    cuda_launch(kernel, dim3((n_lines + n_warps - 1) / n_warps), kWarp * n_warps, stream, j);
    return CUDA_LAUNCHED("exchange");
}

} // namespace exchange

#endif /* KERNELS_CUDA_EXCHANGE_LINE_CUH */
