/* Few rows of x times w: bound by the bytes of w, which go from memory to the lane that multiplies them.
 *
 * A CTA on each SM takes tiles, eight rows of w each, kTiles at a time (linear_ring.cuh).  Its warps share the columns:
 * a warp's step is 64 of them, and every lane copies to shared memory, some steps ahead, the very 16 bytes of each
 * tile that it will hold as tensor core operand; so nobody waits for another.  The first steps are under way before
 * the kernel ahead has ended.  A CTA takes more than half of an SM's shared memory, so that the CTAs of a kernel never
 * double up on the SMs that the kernel ahead leaves first.
 * Rows of x are the other operand, made once a CTA: a bf16 in rows 0..7, what that left over in rows 8..15.
 * The eight warps' sums are added once for all columns.
 * A launch waits for memory once after the kernel ahead: x and what is added to y are asked for together. */
#include "kernels/cuda/cuda_linear.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/linear_ring.cuh"
#include "kernels/cuda/ptx.cuh"

namespace {

constexpr int kWarps = LINEAR_WARPS;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = LINEAR_TILE_ROWS; /* and of x */
constexpr int kStep = LINEAR_STEP;
constexpr int kAtOnce = 4;              /* eighths of x that a thread asks for */
constexpr int kAloneBytes = 116 * 1024; /* no second CTA on the SM */
constexpr int kMaxOperands = 4 * CUDA_LINEAR_ELEMS + CUDA_LINEAR_ROWS * kStep * 4;

__device__ __forceinline__ uint4 shared16(uint32_t from)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

/* Two neighbours of x as bf16, and what that leaves over; NaN or infinity is all in the first. */
__device__ __forceinline__ void split(float x0, float x1, uint32_t *high, uint32_t *low)
{
    const __nv_bfloat162 h = __floats2bfloat162_rn(x0, x1);
    memcpy(high, &h, sizeof h);
    const float left0 = x0 - __uint_as_float(*high << 16);
    const float left1 = x1 - __uint_as_float(*high & 0xffff0000u);
    const __nv_bfloat162 l =
        __floats2bfloat162_rn(isnan(left0) ? 0.0f : left0, isnan(left1) ? 0.0f : left1);
    memcpy(low, &l, sizeof l);
}

/* Where operand `half` of a block of 32 columns lies for a row of x and a lane's eighth: a warp's lanes side by side. */
__device__ __forceinline__ int operand_at(int block, int half, int n_rows, int row, int eighth)
{
    return (((block * 2 + half) * n_rows + row) * 4 + eighth) * 16;
}

/* All of h before its rows' scales, as operands; returns the warp's share of the squares of its row of x.  The warps of
 * a CTA share the rows evenly. */
template <bool kNorm>
__device__ float stage(const cuda_linear &a, uint8_t *operands, int row, int first, int step)
{
    const int n_eighths = (a.k + kStep - 1) / kStep * (kStep / 8);
    const float *x = a.x + (int64_t)row * a.x_stride;
    float squares = 0.0f;
    for (int base = first; base < n_eighths; base += kAtOnce * step) {
        float4 low[kAtOnce];
        float4 high[kAtOnce];
        uint4 norm[kAtOnce];
#pragma unroll
        for (int b = 0; b < kAtOnce; b++) { /* all asked for before the first is used */
            const int i = base + b * step;
            if (i >= n_eighths) {
                break;
            }
            low[b] = high[b] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            norm[b] = make_uint4(0u, 0u, 0u, 0u);
            if (i * 8 < a.k) {
                low[b] = __ldcg(reinterpret_cast<const float4 *>(x + i * 8));
                high[b] = __ldcg(reinterpret_cast<const float4 *>(x + i * 8) + 1);
                if (kNorm) {
                    norm[b] = *reinterpret_cast<const uint4 *>(
                        static_cast<const __nv_bfloat16 *>(a.norm) + i * 8);
                }
            }
        }
#pragma unroll
        for (int b = 0; b < kAtOnce; b++) {
            const int i = base + b * step;
            if (i >= n_eighths) {
                break;
            }
            float v[8] = {low[b].x,  low[b].y,  low[b].z,  low[b].w,
                          high[b].x, high[b].y, high[b].z, high[b].w};
            if (kNorm) {
                const uint32_t w[4] = {norm[b].x, norm[b].y, norm[b].z, norm[b].w};
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    squares = fmaf(v[e], v[e], squares);
                    v[e] *= __uint_as_float(e % 2 == 0 ? w[e / 2] << 16 : w[e / 2] & 0xffff0000u);
                }
            }
            uint4 half[2];
            split(v[0], v[1], &half[0].x, &half[0].y);
            split(v[2], v[3], &half[0].z, &half[0].w);
            split(v[4], v[5], &half[1].x, &half[1].y);
            split(v[6], v[7], &half[1].z, &half[1].w);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                *reinterpret_cast<uint4 *>(operands + operand_at(i / 4, h, a.m, row, i % 4)) =
                    half[h];
            }
        }
    }
    for (int apart = 16; apart > 0; apart /= 2) {
        squares += __shfl_xor_sync(~0u, squares, apart);
    }
    return squares;
}

/* What a thread finishes: one element of a run of tiles.  What is added to it is asked for early and used late. */
struct result {
    float *y;      /* or NULL: none */
    float was;     /* y, where that is added to */
    uint32_t bias; /* as stored */
    base_dtype bias_dtype;

    __device__ __forceinline__ void find(const cuda_linear &a, linear_place p, bool there)
    {
        const int row = p.row(a, threadIdx.x % kRows);
        const int m = threadIdx.x / kRows % kRows;
        const cuda_linear_part &part = a.parts[p.part];
        y = nullptr;
        was = 0.0f;
        bias = 0u;
        bias_dtype = BASE_F32;
        if (!there || m >= a.m || row >= part.n || (a.gated && threadIdx.x % kRows >= 4)) {
            return;
        }
        y = part.y + (int64_t)m * part.y_stride + row;
        if (part.bias != nullptr) {
            bias_dtype = part.bias_dtype;
            bias = bias_dtype == BASE_F32 ? static_cast<const uint32_t *>(part.bias)[row]
                                          : static_cast<const uint16_t *>(part.bias)[row];
        }
    }

    __device__ __forceinline__ void ask(const cuda_linear &a)
    {
        if (a.accumulate && y != nullptr) {
            was = __ldcg(y);
        }
    }

    __device__ __forceinline__ void put(float sum) const
    {
        const float add = bias_dtype == BASE_F32   ? __uint_as_float(bias)
                          : bias_dtype == BASE_F16 ? __half2float(__ushort_as_half((uint16_t)bias))
                                                   : __uint_as_float(bias << 16);
        if (y != nullptr) {
            *y = sum + add + was;
        }
    }
};

/* Of a warp's ring. */
template <int kTiles>
constexpr int kSlotsOf = 12 / kTiles; /* 96 KiB a CTA */

template <int kTiles>
constexpr int kRingBytes = kSlotsOf<kTiles> *kTiles *LINEAR_TILE_BYTES;

template <int kTiles, bool kNorm>
__global__ void __launch_bounds__(kThreads, 2)
    linear_kernel(const __grid_constant__ cuda_linear a, const int n_tiles)
{
    constexpr int kSlotBytes = kTiles * LINEAR_TILE_BYTES;
    constexpr int kSlots = kSlotsOf<kTiles>;
    constexpr int kSums = kTiles * kRows * kRows; /* of a warp */
    static_assert(kSums <= kThreads, "a thread finishes one");
    extern __shared__ __align__(128) uint8_t memory[];
    __shared__ float sums[kWarps][kSums];
    __shared__ float squares_of[kWarps];
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int n_steps = (a.k + kStep - 1) / kStep;
    const int own_steps = warp < n_steps ? (n_steps - warp - 1) / kWarps + 1 : 0;
    const int own_tiles = (n_tiles - (int)blockIdx.x - 1) / (int)gridDim.x + 1;
    const uint32_t slots = ptx_shared(memory) + warp * kRingBytes<kTiles> + lane * 16;
    uint8_t *operands = memory + kWarps * kRingBytes<kTiles>;
    const int m = lane / 4;
    const int row_warps = a.m == 1 ? 8 : a.m == 2 ? 4 : a.m <= 4 ? 2 : 1;

    linear_feeder<kTiles> feed;
    feed.first_col = warp * kStep + lane % 4 * 8;
    feed.n_tiles = own_steps > 0 ? own_tiles : 0;
    feed.next = {0, 0};
    feed.next.advance(a, blockIdx.x);
    const int my_tile = threadIdx.x / (kRows * kRows); /* of a run; my element of it */
    const int my_row = threadIdx.x / kRows % kRows;
    linear_place mine = feed.next;
    mine.advance(a, my_tile * (int)gridDim.x);
    if (feed.n_tiles > 0) {
        feed.begin(a);
    }
#pragma unroll 1
    for (int i = 0; i + 1 < kSlots; i++) {
        feed.feed(a, slots + i * kSlotBytes);
    }
    result y;
    y.find(a, mine, threadIdx.x < kSums && my_tile < own_tiles);
    cuda_after_previous(); /* nobody writes w; x and y are touched from here on */

    y.ask(a);
    if (warp / row_warps < a.m) {
        const float squares = stage<kNorm>(a, operands, warp / row_warps,
                                           warp % row_warps * 32 + lane, row_warps * 32);
        if (kNorm && lane == 0) {
            squares_of[warp] = squares;
        }
    }
    __syncthreads(); /* operands and squares are here */
    float scale = 1.0f;
    if (kNorm) {
        float squares = 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; w++) {
            squares += w / row_warps == my_row ? squares_of[w] : 0.0f;
        }
        scale = rsqrtf(squares / a.k + a.eps);
    }
    const uint32_t own_operands = ptx_shared(operands) + operand_at(0, 0, a.m, m, lane % 4);
    int slot = 0;
    for (int tile = 0; tile < own_tiles; tile += kTiles) {
        float acc[kTiles][4] = {};
#pragma unroll 1
        for (int i = 0; i < own_steps; i++) {
            const int freed = slot == 0 ? kSlots - 1 : slot - 1; /* taken a step ago */
            const uint32_t from = slots + slot * kSlotBytes;
            feed.feed(a, slots + freed * kSlotBytes);
            linear_copies_wait<kSlots - 1>();
#pragma unroll
            for (int j = 0; j < LINEAR_STEP_BLOCKS; j++) {
                const int block = (i * kWarps + warp) * LINEAR_STEP_BLOCKS + j;
                uint4 first = make_uint4(0u, 0u, 0u, 0u);
                uint4 second = first;
                if (m < a.m) {
                    first = shared16(own_operands + operand_at(block, 0, a.m, 0, 0));
                    second = shared16(own_operands + operand_at(block, 1, a.m, 0, 0));
                }
#pragma unroll
                for (int t = 0; t < kTiles; t++) {
                    if (tile + t < own_tiles) {
                        const uint4 w = shared16(from + t * LINEAR_TILE_BYTES + j * 512);
                        ptx_mma_bf16(acc[t], first, w.x, w.y);
                        ptx_mma_bf16(acc[t], second, w.z, w.w);
                    }
                }
            }
            slot = slot + 1 < kSlots ? slot + 1 : 0;
        }
        __syncthreads(); /* the sums before were read */
#pragma unroll
        for (int t = 0; t < kTiles; t++) {
            *reinterpret_cast<float2 *>(&sums[warp][t * 64 + m * 8 + lane % 4 * 2]) =
                make_float2(acc[t][0] + acc[t][2], acc[t][1] + acc[t][3]);
        }
        __syncthreads(); /* sums are here */
        if (threadIdx.x < kSums) {
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < kWarps; w++) {
                sum += sums[w][threadIdx.x];
            }
            sum *= scale;
            if (a.gated) {
                const float up = __shfl_down_sync(~0u, sum, 4);
                sum = sum / (1.0f + expf(-sum)) * up;
            }
            y.put(sum);
            mine.advance(a, kTiles * (int)gridDim.x);
            y.find(a, mine, tile + kTiles + my_tile < own_tiles);
            y.ask(a);
        }
    }
}

int sm_count()
{
    int device = 0;
    int n = 0;
    (void)cudaGetDevice(&device);
    (void)cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device);
    return n;
}

template <int kTiles, bool kNorm>
base_status run(cudaStream_t stream, const cuda_linear &a, int n_tiles, int n_ctas)
{
    constexpr int kRings = kWarps * kRingBytes<kTiles>;
    const int need = kRings + (a.k + kStep - 1) / kStep * kStep * a.m * 4;
    const int n_bytes = need > kAloneBytes ? need : kAloneBytes;
    const base_status st = cuda_to_status(
        cudaFuncSetAttribute(linear_kernel<kTiles, kNorm>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, kRings + kMaxOperands),
        "linear");
    if (st == BASE_OK) {
        cuda_launch_shared(linear_kernel<kTiles, kNorm>, dim3(n_ctas), kThreads, n_bytes, stream, a,
                           n_tiles);
    }
    return st == BASE_OK ? CUDA_LAUNCHED("linear") : st;
}

template <int kTiles>
base_status run_tiles(cudaStream_t stream, const cuda_linear &a, int n_tiles, int n_ctas)
{
    return a.norm != nullptr ? run<kTiles, true>(stream, a, n_tiles, n_ctas)
                             : run<kTiles, false>(stream, a, n_tiles, n_ctas);
}

/* Of n_tiles of a CTA at most: three where four leave more of the last run empty. */
int tiles_at_once(int n_tiles)
{
    if (n_tiles < 4) {
        return n_tiles;
    }
    return (n_tiles + 2) / 3 * 3 < (n_tiles + 3) / 4 * 4 ? 3 : 4;
}

} // namespace

extern "C" base_status cuda_linear_run(void *stream, const cuda_linear *a)
{
    static const int n_sms = sm_count();
    const auto s = static_cast<cudaStream_t>(stream);
    int n_tiles = 0;
    if (a->gated) {
        n_tiles = (a->parts[0].n + kRows / 2 - 1) / (kRows / 2);
    } else {
        for (int i = 0; i < a->n_parts; i++) {
            n_tiles += (a->parts[i].n + kRows - 1) / kRows;
        }
    }
    const int n_ctas = n_tiles < n_sms ? n_tiles : n_sms;
    switch (tiles_at_once((n_tiles + n_ctas - 1) / n_ctas)) {
    case 1: return run_tiles<1>(s, *a, n_tiles, n_ctas);
    case 2: return run_tiles<2>(s, *a, n_tiles, n_ctas);
    case 3: return run_tiles<3>(s, *a, n_tiles, n_ctas);
    default: return run_tiles<4>(s, *a, n_tiles, n_ctas);
    }
}
