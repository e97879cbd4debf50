/* Few rows of x times w: bound by the bytes of w, which go from memory to the lane that multiplies them.
 *
 * A CTA on each SM takes an equal run of tiles, eight rows of w each, kTiles at a time.  Its warps share the columns:
 * a warp's step is 64 of them, and every lane copies to shared memory, some steps ahead, the very 16 bytes of each
 * tile that it will hold as tensor core operand; so nobody waits for another.  The first steps are under way before
 * the kernel ahead has ended.  A CTA takes more than half of an SM's shared memory, so that the CTAs of a kernel never
 * double up on the SMs that the kernel ahead leaves first.
 * Rows of x are the other operand, made once a CTA: a bf16 in rows 0..7, what that left over in rows 8..15.
 * The eight warps' sums are added once for all columns. */
#include "kernels/cuda/cuda_linear.h"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_elem.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/ptx.cuh"

namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 8;       /* of w in a tile, and of x */
constexpr int kBlock = 32;     /* columns that the 16 bytes of four lanes are */
constexpr int kStepBlocks = 2; /* a line of 128 bytes from each row */
constexpr int kStep = kStepBlocks * kBlock;
constexpr int kTileBytes = kRows * kStep * 2;
constexpr int kAloneBytes = 116 * 1024; /* no second CTA on the SM */
constexpr int kMaxOperands = 4 * CUDA_LINEAR_ELEMS + CUDA_LINEAR_ROWS * kStep * 4;

__device__ __forceinline__ void copy16(uint32_t to, const void *from, bool there)
{
    const int n_bytes = there ? 16 : 0; /* what is not there is zero */
    asm volatile("cp.async.cg.shared.global.L2::128B [%0],[%1],16,%2;" ::"r"(to), "l"(from),
                 "r"(n_bytes)
                 : "memory");
}

__device__ __forceinline__ void copies_end_group()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int kPending>
__device__ __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ uint4 shared16(uint32_t from)
{
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

__device__ int tiles_of(const cuda_linear_part &part)
{
    return (part.n + kRows - 1) / kRows;
}

/* Row r of a tile: of which part, and which of its rows. */
struct place {
    int part;
    int row;
};

__device__ place place_of(const cuda_linear &a, int tile, int r)
{
    if (a.gated) { /* four rows of either, so that a lane's neighbour holds what it needs */
        return {r / 4, tile * 4 + r % 4};
    }
    place p = {0, tile};
    while (p.part + 1 < a.n_parts && p.row >= tiles_of(a.parts[p.part])) {
        p.row -= tiles_of(a.parts[p.part++]);
    }
    p.row = p.row * kRows + r;
    return p;
}

/* The lane's row of a tile; beyond the last row the last one, whose sums nobody takes. */
__device__ const __nv_bfloat16 *row_of(const cuda_linear &a, int tile, int r)
{
    const place p = place_of(a, tile, r);
    const cuda_linear_part &part = a.parts[p.part];
    return static_cast<const __nv_bfloat16 *>(part.w) +
           (int64_t)(p.row < part.n ? p.row : part.n - 1) * a.k;
}

/* Puts a warp's steps into its ring, in the order in which they are taken. */
template <int kTiles>
struct feeder {
    const __nv_bfloat16 *rows[kTiles];
    int tile; /* first one of the run */
    int end;
    int col; /* of the lane, in the warp's step */

    __device__ void begin(const cuda_linear &a, int first_col)
    {
        col = first_col;
#pragma unroll
        for (int i = 0; i < kTiles; i++) {
            rows[i] = row_of(a, tile + i < end ? tile + i : end - 1, threadIdx.x % 32 / 4);
        }
    }

    __device__ __forceinline__ void feed(const cuda_linear &a, uint32_t slot, int first_col)
    {
        if (tile < end) {
#pragma unroll
            for (int i = 0; i < kTiles; i++) {
                if (tile + i < end) {
#pragma unroll
                    for (int j = 0; j < kStepBlocks; j++) {
                        const int c = col + j * kBlock;
                        copy16(slot + i * kTileBytes + j * 512, rows[i] + (c < a.k ? c : 0),
                               c < a.k);
                    }
                }
            }
            col += kWarps * kStep;
            if (col - first_col % kBlock >= a.k) { /* the same for all lanes */
                tile += kTiles;
                if (tile < end) {
                    begin(a, first_col);
                }
            }
        }
        copies_end_group();
    }
};

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
#pragma unroll 8
    for (int i = first; i < n_eighths; i += step) {
        float v[8] = {};
        if (i * 8 < a.k) {
            const float4 low = __ldcg(reinterpret_cast<const float4 *>(x + i * 8));
            const float4 high = __ldcg(reinterpret_cast<const float4 *>(x + i * 8) + 1);
            v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
            v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
            if (kNorm) {
                float w[8];
                cuda_load8(static_cast<const __nv_bfloat16 *>(a.norm) + i * 8, w);
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    squares = fmaf(v[e], v[e], squares);
                    v[e] *= w[e];
                }
            }
        }
        uint4 half[2];
        split(v[0], v[1], &half[0].x, &half[0].y);
        split(v[2], v[3], &half[0].z, &half[0].w);
        split(v[4], v[5], &half[1].x, &half[1].y);
        split(v[6], v[7], &half[1].z, &half[1].w);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            *reinterpret_cast<uint4 *>(operands + operand_at(i / 4, h, a.m, row, i % 4)) = half[h];
        }
    }
    for (int apart = 16; apart > 0; apart /= 2) {
        squares += __shfl_xor_sync(~0u, squares, apart);
    }
    return squares;
}

__device__ __forceinline__ float bias_at(const cuda_linear_part &part, int n)
{
    switch (part.bias_dtype) {
    case BASE_F32: return static_cast<const float *>(part.bias)[n];
    case BASE_F16: return cuda_f32(static_cast<const __half *>(part.bias)[n]);
    case BASE_BF16: return cuda_f32(static_cast<const __nv_bfloat16 *>(part.bias)[n]);
    }
    return 0.0f;
}

/* What a thread finishes: one element of a run of tiles. */
struct result {
    float *y; /* or NULL: none */
    float add;

    __device__ __forceinline__ void find(const cuda_linear &a, int tile, int end, int m, int col)
    {
        y = nullptr;
        add = 0.0f;
        if (tile >= end || m >= a.m) {
            return;
        }
        const place p = place_of(a, tile, col);
        const cuda_linear_part &part = a.parts[p.part];
        if (p.row >= part.n || (a.gated && p.part != 0)) {
            return;
        }
        y = part.y + (int64_t)m * part.y_stride + p.row;
        if (part.bias != nullptr) {
            add = bias_at(part, p.row);
        }
        if (a.accumulate) {
            add += __ldcg(y);
        }
    }
};

/* Of a warp's ring. */
template <int kTiles>
constexpr int kSlotsOf = 12 / kTiles; /* 96 KiB a CTA */

template <int kTiles>
constexpr int kRingBytes = kSlotsOf<kTiles> *kTiles *kTileBytes;

template <int kTiles, bool kNorm>
__global__ void __launch_bounds__(kThreads, 2)
    linear_kernel(const __grid_constant__ cuda_linear a, const int n_tiles)
{
    constexpr int kSlotBytes = kTiles * kTileBytes;
    constexpr int kSlots = kSlotsOf<kTiles>;
    constexpr int kSums = kTiles * kRows * kRows; /* of a warp */
    static_assert(kSums <= kThreads, "a thread finishes one");
    extern __shared__ __align__(128) uint8_t memory[];
    __shared__ float sums[kWarps][kSums];
    __shared__ float squares_of[kWarps];
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int first_col = warp * kStep + lane % 4 * 8;
    const int n_steps = (a.k + kStep - 1) / kStep;
    const int own_steps = warp < n_steps ? (n_steps - warp - 1) / kWarps + 1 : 0;
    const uint32_t slots = ptx_shared(memory) + warp * kRingBytes<kTiles> + lane * 16;
    uint8_t *operands = memory + kWarps * kRingBytes<kTiles>;
    const int begin = (int)((int64_t)n_tiles * blockIdx.x / gridDim.x);
    const int end = (int)((int64_t)n_tiles * (blockIdx.x + 1) / gridDim.x);
    const int m = lane / 4;
    const int row_warps = a.m == 1 ? 8 : a.m == 2 ? 4 : a.m <= 4 ? 2 : 1;

    feeder<kTiles> feed;
    feed.end = end;
    feed.tile = own_steps > 0 ? begin : end;
    if (feed.tile < end) {
        feed.begin(a, first_col);
    }
#pragma unroll
    for (int i = 0; i + 1 < kSlots; i++) {
        feed.feed(a, slots + i * kSlotBytes, first_col);
    }
    cuda_after_previous(); /* nobody writes w; x and y are touched from here on */

    if (warp / row_warps < a.m) {
        const float squares = stage<kNorm>(a, operands, warp / row_warps,
                                           warp % row_warps * 32 + lane, row_warps * 32);
        if (kNorm && lane == 0) {
            squares_of[warp] = squares;
        }
    }
    __syncthreads(); /* operands and squares are here */
    const uint32_t own_operands = ptx_shared(operands) + operand_at(0, 0, a.m, m, lane % 4);
    int slot = 0;
    for (int tile = begin; tile < end; tile += kTiles) {
        float acc[kTiles][4] = {};
        result mine;
        if (threadIdx.x < kSums) {
            mine.find(a, tile + threadIdx.x / 64, end, threadIdx.x / 8 % 8, threadIdx.x % 8);
        }
#pragma unroll 1
        for (int i = 0; i < own_steps; i++) {
            const int freed = slot == 0 ? kSlots - 1 : slot - 1; /* taken a step ago */
            feed.feed(a, slots + freed * kSlotBytes, first_col);
            copies_wait<kSlots - 1>();
            const uint32_t from = slots + slot * kSlotBytes;
#pragma unroll
            for (int j = 0; j < kStepBlocks; j++) {
                const int block = (i * kWarps + warp) * kStepBlocks + j;
                uint4 first = make_uint4(0u, 0u, 0u, 0u);
                uint4 second = first;
                if (m < a.m) {
                    first = shared16(own_operands + operand_at(block, 0, a.m, 0, 0));
                    second = shared16(own_operands + operand_at(block, 1, a.m, 0, 0));
                }
#pragma unroll
                for (int t = 0; t < kTiles; t++) {
                    if (tile + t < end) {
                        const uint4 w = shared16(from + t * kTileBytes + j * 512);
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
            const int row = threadIdx.x / 8 % 8;
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < kWarps; w++) {
                sum += sums[w][threadIdx.x];
            }
            if (kNorm) {
                float squares = 0.0f;
                for (int w = 0; w < row_warps && row < a.m; w++) {
                    squares += squares_of[row * row_warps + w];
                }
                sum *= 1.0f / sqrtf(squares / a.k + a.eps);
            }
            if (a.gated) {
                const float up = __shfl_down_sync(~0u, sum, 4);
                sum = sum / (1.0f + expf(-sum)) * up;
            }
            if (mine.y != nullptr) {
                *mine.y = sum + mine.add;
            }
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
    switch ((n_tiles + n_ctas - 1) / n_ctas) {
    case 1: return run_tiles<1>(s, *a, n_tiles, n_ctas);
    case 2: return run_tiles<2>(s, *a, n_tiles, n_ctas);
    case 3: return run_tiles<3>(s, *a, n_tiles, n_ctas);
    default: return run_tiles<4>(s, *a, n_tiles, n_ctas);
    }
}
