/* kernels/cuda/attn_query.cuh - the queries of a piece as right-hand factors in shared memory, once per piece. */
#ifndef KERNELS_CUDA_ATTN_QUERY_CUH
#define KERNELS_CUDA_ATTN_QUERY_CUH

#include "kernels/cuda/attn_shared.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define ATTN_LOG2E 1.4426950408889634f

/* Two numbers as two 16-bit floats each. */
struct attn_split {
    uint32_t high;
    uint32_t low;
};

static __device__ __forceinline__ attn_split attn_split_bf16(float a, float b)
{
    const __nv_bfloat162 high = __floats2bfloat162_rn(a, b);
    const __nv_bfloat162 low = __floats2bfloat162_rn(a - __low2float(high), b - __high2float(high));
    return {*(const uint32_t *)&high, *(const uint32_t *)&low};
}

static __device__ __forceinline__ attn_split attn_split_fp16(float a, float b)
{
    const __half2 high = __floats2half2_rn(a, b);
    const __half2 low = __floats2half2_rn(a - __low2float(high), b - __high2float(high));
    return {*(const uint32_t *)&high, *(const uint32_t *)&low};
}

/* Words b 0 and 1 of block and lane (column, c). */
template <int NC>
static __device__ __forceinline__ void attn_put_split(uint32_t *to, int block, int row, int c,
                                                      int b, attn_split x)
{
    if constexpr (NC == 2) {
        uint32_t *at = to + (block * 32 + row * 4 + c) * 4 + b;
        at[0] = x.high;
        at[2] = x.low;
    } else {
        uint32_t *at = to + (block * 32 + row * 8 + c) * 2 + b;
        at[0] = x.high;
        at[8] = x.low;
    }
}

/* The segment of the dims 4 lane .. 4 lane + 3. */
static __device__ __forceinline__ int attn_segment_of(const cuda_side &side, int dim)
{
    int s = 0;
    while (s + 1 < side.n_segments && side.segments[s + 1].first_dim <= dim) {
        s++;
    }
    return s;
}

/* int8: q = sum over high and low, 16 bits for NC = 2 (signed high, unsigned low), 15 for NC = 1 (both signed). */
template <class C>
static __device__ void attn_query_codes(const cuda_side &side, attn_query<C> *query, int row,
                                        const float (&q)[4], float unit)
{
    const int lane = threadIdx.x % 32;
    const bool is_here = 4 * lane < C::D;
    const int segment = C::KB != 0 ? 0 : attn_segment_of(side, 4 * lane);
    const cuda_segment &g = side.segments[segment];
    float v[4];
    float top = 0.0f;
    bool is_finite = true;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = is_here ? q[i] * g.scale : 0.0f;
        top = fmaxf(top, fabsf(v[i]));
        is_finite = is_finite && fabsf(v[i]) < INFINITY;
    }
    for (int step = 16; step > 0; step /= 2) {
        top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    }
    is_finite = __all_sync(~0u, is_finite);
    const float inverse = (C::NC == 2 ? 32512.0f : 16256.0f) / fmaxf(top, 1e-30f);
    uint32_t high = 0;
    uint32_t low = 0;
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int x = __float2int_rn(v[i] * inverse);
        const int l = C::NC == 2 ? x & 255 : ((x + 64) & 127) - 64;
        const int h = C::NC == 2 ? x >> 8 : (x - l) >> 7;
        high |= (uint32_t)(h & 255) << (8 * i);
        low |= (uint32_t)(l & 255) << (8 * i);
        sum += x;
    }
    if (is_here) {
        const int block = lane / 4 - g.first_dim / 16; /* of the segment */
        uint32_t *to = query->codes + (lane / 4 - block % 2) * 32 * C::NC;
        if (block + 1 < g.n_dims / 16 || block % 2 == 1) { /* two blocks together */
            const int at = C::NC == 2 ? (row * 4 + lane % 4) * 4 : (row * 8 + lane % 4) * 2;
            to[at + block % 2] = high;
            to[at + block % 2 + (C::NC == 2 ? 2 : 8)] = low;
        } else {
            const int at = C::NC == 2 ? (row * 4 + lane % 4) * 2 : row * 8 + lane % 4;
            to[at] = high;
            to[at + (C::NC == 2 ? 1 : 4)] = low;
        }
    }
    for (int s = 0; s < side.n_segments && (C::KB == 0 || C::KB == 4); s++) {
        const int mine = is_here && s == segment ? sum : 0;
        const int all = __reduce_add_sync(~0u, mine);
        if (lane == 0) {
            query->code_sum[s][row] = all;
        }
    }
    if (lane == 0) {
        query->unit[row] = is_finite ? unit / inverse : NAN;
    }
}

/* fp16, scaled by the segments' scales and to at most 1: dims in the order of pairs (fragment_order.h). */
template <class C>
static __device__ void attn_query_halves(const cuda_side &side, attn_query<C> *query, int row,
                                         const float (&q)[4], float unit)
{
    const int lane = threadIdx.x % 32;
    const bool is_here = 4 * lane < C::D;
    const float scale = side.segments[attn_segment_of(side, 4 * lane)].scale;
    float top = 0.0f;
    bool is_finite = true;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float v = is_here ? q[i] * scale : 0.0f;
        top = fmaxf(top, fabsf(v));
        is_finite = is_finite && fabsf(v) < INFINITY;
    }
    for (int step = 16; step > 0; step /= 2) {
        top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    }
    is_finite = __all_sync(~0u, is_finite);
    const float inverse = 1.0f / fmaxf(top, 1e-30f);
    if (is_here) {
        const float k = scale * inverse;
        attn_put_split<C::NC>(query->halves, lane / 4, row, lane % 4, 0,
                              attn_split_fp16(q[0] * k, q[1] * k));
        attn_put_split<C::NC>(query->halves, lane / 4, row, lane % 4, 1,
                              attn_split_fp16(q[2] * k, q[3] * k));
    }
    if (lane == 0) {
        query->unit[row] = is_finite ? unit / inverse : NAN;
        query->inverse_top[row] = inverse;
    }
}

/* fp16, scaled to at most 1, dims in the order of affine squares: {high 0, low 0, high 1, low 1}.  NC = 1: high in both
 * columns of a row, low in the odd one beside 0. */
template <class C>
static __device__ void attn_query_affine(attn_query<C> *query, int row, const float (&q)[4],
                                         float unit)
{
    const int lane = threadIdx.x % 32;
    float top = 0.0f;
    bool is_finite = true;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        top = fmaxf(top, fabsf(q[i]));
        is_finite = is_finite && fabsf(q[i]) < INFINITY;
    }
    for (int step = 16; step > 0; step /= 2) {
        top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    }
    is_finite = __all_sync(~0u, is_finite);
    const float k = 1.0f / fmaxf(top, 1e-30f);
    if (4 * lane < C::D) {
        const attn_split a = attn_split_fp16(q[0] * k, q[1] * k);
        const attn_split b = attn_split_fp16(q[2] * k, q[3] * k);
        const int square = lane / 8 * 2 + lane % 2;
        const int c = lane % 8 / 2;
        uint4 *to = (uint4 *)query->halves + square * 32;
        if constexpr (C::NC == 2) {
            to[row * 4 + c] = make_uint4(a.high, a.low, b.high, b.low);
        } else {
            to[row * 8 + c] = make_uint4(a.high, 0, b.high, 0);
            to[row * 8 + 4 + c] = make_uint4(a.high, a.low, b.high, b.low);
        }
    }
    if (lane == 0) {
        query->unit[row] = is_finite ? unit / k : NAN;
    }
}

/* Four dims of a query row; zero past the last row. */
template <class C>
static __device__ __forceinline__ float4 attn_query_load(const attn_job &job, const attn_piece &p,
                                                         int row)
{
    const int lane = threadIdx.x % 32;
    const int at = p.head.tile * C::R + row;
    if (row >= C::R || at >= p.head.seq.n_tokens * job.group || 4 * lane >= C::D) {
        return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    const int t = attn_token_of(job, at);
    const int64_t token = p.head.seq.first_token + t;
    const int64_t head = (int64_t)p.head.head * job.group + (at - t * job.group);
    return *(const float4 *)(job.a.q + (token * job.a.n_heads + head) * C::D + 4 * lane);
}

/* All warps, a row each and then the next; first: the warp's first row, asked for before the format was there.
 * The caller syncs before and after. */
template <class C>
static __device__ void attn_query_build(const attn_job &job, const attn_piece &piece,
                                        const cuda_head &format, attn_query<C> *query, float4 first)
{
    const int lane = threadIdx.x % 32;
    const float unit = ATTN_LOG2E * job.a.scale;
    float4 q = first;
#pragma unroll 1
    for (int row = (int)threadIdx.x / 32; row < C::R;) {
        const float v[4] = {q.x, q.y, q.z, q.w};
        if (4 * lane < C::D) { /* plain order: dims 2c, 2c + 1 and 8 on */
            const int b = lane % 4 / 2;
            const int c = lane % 2 * 2;
            uint32_t *to = query->rows;
            attn_put_split<C::NC>(to, lane / 4, row, c, b, attn_split_bf16(v[0], v[1]));
            attn_put_split<C::NC>(to, lane / 4, row, c + 1, b, attn_split_bf16(v[2], v[3]));
        }
        if constexpr (C::family == CUDA_CODED) {
            attn_query_codes<C>(format.side[0], query, row, v, unit);
        } else if constexpr (C::family == CUDA_TABLE) {
            attn_query_halves<C>(format.side[0], query, row, v, unit);
        } else if constexpr (C::family == CUDA_AFFINE) {
            attn_query_affine<C>(query, row, v, unit);
        }
        row += (int)blockDim.x / 32;
        q = attn_query_load<C>(job, piece, row);
    }
}

#endif /* KERNELS_CUDA_ATTN_QUERY_CUH */
