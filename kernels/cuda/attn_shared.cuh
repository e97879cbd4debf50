/* kernels/cuda/attn_shared.cuh - what a CTA of decode attention keeps in shared memory, and the words that the
 * parts of the kernel share.
 *
 * Lane 4g + c of a warp.  Query rows are the columns of every product: with NC = 2 up to eight, row 2c + j in
 * element j of a lane; with NC = 1 up to four, row c, and every row takes two columns, the high and the low half of
 * its numbers, so that their precision costs nothing. */
#ifndef KERNELS_CUDA_ATTN_SHARED_CUH
#define KERNELS_CUDA_ATTN_SHARED_CUH

#include "kernels/cuda/attn_job.cuh"
#include "kernels/cuda/ptx.cuh"

/* One kind of kernel. */
template <cuda_family FAMILY_, int D_, int NC_, int KB_, int VB_, int GROUP_ = 0>
struct attn_kind {
    static constexpr cuda_family family = FAMILY_;
    static constexpr int D = D_;
    static constexpr int NC = NC_;
    static constexpr int R = 4 * NC_;
    static constexpr int KB = KB_; /* the only width of K; 0: look at each segment */
    static constexpr int VB = VB_;
    static constexpr int group = GROUP_; /* the only one of affine segments; 0: look at each */
    static constexpr int blocks = D_ / 16;
    static constexpr int chunk_rows = 16;                   /* of bf16 */
    static constexpr int chunk_bytes = chunk_rows * 2 * D_; /* of bf16 rows of one side */
    static constexpr int slots = FAMILY_ == CUDA_DENSE ? 5 : 2;
    static constexpr int sum_slots = FAMILY_ == CUDA_DENSE ? 2 : 1; /* that hold a warp's sums */
    /* Where instructions bind, three a scheduler: 2 bits with few rows, and K of several segments. */
    static constexpr bool binds =
        (KB_ == 2 && NC_ == 1) || (FAMILY_ == CUDA_CODED && KB_ == 0 && VB_ != 0);
    static constexpr int max_warps = binds ? 12 : 8;
    /* Leaves room for the launch that merges the parts, which begins while this one runs; eight rows over several
     * segments would spill for it. */
    static constexpr int max_registers = !binds ? 232 : NC_ == 1 ? 152 : 168;
    static constexpr int pitch = D_ + (NC_ == 2 ? 4 : 8); /* of staged sums: no bank conflicts */
    /* Of queries as fp16. */
    static constexpr int half_words = FAMILY_ == CUDA_TABLE    ? blocks * 32 * 2 * NC_
                                      : FAMILY_ == CUDA_AFFINE ? blocks * 32 * 4
                                                               : 1;
};

/* Query rows as right-hand factors: [D / 16][32 lanes]. */
template <class C>
struct attn_query {
    /* int8, of a segment's blocks two by two: {high, high, low, low}, of the last, if odd: {high, low}; with NC = 1
     * columns alternate.  Of the table kernel: unused. */
    alignas(16) uint32_t codes[C::blocks * 32 * C::NC];
    alignas(
        16) uint32_t rows[C::blocks * 32 * 2 * C::NC]; /* bf16: {high 0, high 1, low 0, low 1} */
    alignas(16) uint32_t halves[C::half_words]; /* fp16, the same; affine: {high, low} twice */
    float unit[ATTN_MAX_ROWS];        /* base-2 logit = unit * what codes or halves give */
    float inverse_top[ATTN_MAX_ROWS]; /* of the table kernel: halves are of q * inverse_top */
    int32_t code_sum[KERN_MAX_SEGMENTS][ATTN_MAX_ROWS]; /* of a segment's codes */
};

/* A position. */
struct attn_place {
    int32_t block;
    int32_t row;
};

struct attn_piece { /* of a head, for one CTA */
    attn_head head;
    int32_t first; /* items */
    int32_t n_pages;
    int32_t n_open_tiles; /* of 16 rows */
    bool begins;          /* it has the first item */
    bool ends;            /* and the tail */
    bool is_there;
    attn_place first_query; /* of the tile */
    attn_place last_query;
};

struct attn_line { /* what is left of the CTA's share, and its first head */
    attn_head head;
    uint32_t begin;
    uint32_t end; /* begin: nothing */
};

template <class C>
struct attn_shared {
    attn_query<C> query;
    alignas(16) cuda_head format[2]; /* of the piece and of the next */
    attn_piece piece[2];
    attn_line line;
    float2 ml[C::max_warps][ATTN_MAX_ROWS]; /* maximum and sum of each warp */
};

/* The token of a sequence that has its query row. */
static __device__ __forceinline__ int attn_token_of(const attn_job &job, int row)
{
    return (int)attn_over((uint32_t)row, (uint32_t)job.group, job.group_inverse);
}

/* The position of a query row of the piece; rows past the last are like the last. */
template <class C>
static __device__ attn_place attn_row_place(const attn_job &job, const attn_piece &p, int row)
{
    const int t = attn_token_of(job, p.head.tile * C::R + row);
    const int64_t at = p.head.seq.position + min(t, p.head.seq.n_tokens - 1); /* not below 0 */
    return {(int32_t)(at >> 7), (int32_t)at & (KERN_BLOCK_TOKENS - 1)};
}

/* What queries see (op_attn.h). */
static __device__ __forceinline__ bool attn_sees_page(const attn_job &job, attn_place query,
                                                      int32_t block)
{
    return block >= job.a.sink_blocks && query.block > block + job.a.window_blocks;
}

/* Rows of an open that the query sees. */
static __device__ __forceinline__ int attn_rows_seen(const attn_job &job, attn_place query,
                                                     int32_t block)
{
    if (block == query.block) {
        return query.row + 1;
    }
    return block < query.block &&
                   (query.block - block <= job.a.window_blocks || block < job.a.sink_blocks)
               ? KERN_BLOCK_TOKENS
               : 0;
}

/* The most rows of an open that a query of the piece sees: later queries see more, until it leaves the window. */
static __device__ __forceinline__ int attn_most_rows_seen(const attn_job &job, const attn_piece &p,
                                                          int32_t block)
{
    const int32_t left = block < job.a.sink_blocks ? INT32_MAX : block + job.a.window_blocks;
    if (p.first_query.block > left) {
        return 0;
    }
    return attn_rows_seen(
        job, p.last_query.block > left ? attn_place{left, KERN_BLOCK_TOKENS - 1} : p.last_query,
        block);
}

/* What a warp knows while it goes through its items: sums over V, 16d + 8r + g of row (c, j), relative to m. */
template <class C>
struct attn_state {
    float o[C::blocks][2][C::NC];
    float m[C::NC];
    float l[C::NC]; /* of this lane's tokens */

    __device__ void clear()
    {
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            m[j] = -INFINITY;
            l[j] = 0.0f;
#pragma unroll
            for (int d = 0; d < C::blocks; d++) {
                o[d][0][j] = o[d][1][j] = 0.0f;
            }
        }
    }

    /* x [B][2][NC], token 16u + 8r + g: products with unit, or -inf; in their place weights relative to their
     * maximum.  factor: what the maximum is relative to m, 0 where the row does not see them. */
    template <int B>
    __device__ void weigh(float (&x)[B][2][C::NC], const float (&unit)[C::NC],
                          const bool (&sees)[C::NC], float (&factor)[C::NC])
    {
        float top[C::NC];
        bool up = false;
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            float t = fmaxf(x[0][0][j], x[0][1][j]);
#pragma unroll
            for (int u = 1; u < B; u++) {
                t = fmaxf(t, fmaxf(x[u][0][j], x[u][1][j]));
            }
            t = fmaxf(t, __shfl_xor_sync(~0u, t, 4));
            t = fmaxf(t, __shfl_xor_sync(~0u, t, 8));
            t = fmaxf(t, __shfl_xor_sync(~0u, t, 16));
            top[j] = sees[j] ? t * unit[j] : -INFINITY;
            up |= top[j] > m[j];
        }
        if (__any_sync(~0u, up)) {
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                const float now = fmaxf(m[j], top[j]);
                const float k = now == -INFINITY ? 1.0f : ptx_exp2(m[j] - now);
                m[j] = now;
                l[j] *= k;
#pragma unroll
                for (int d = 0; d < C::blocks; d++) {
                    o[d][0][j] *= k;
                    o[d][1][j] *= k;
                }
            }
        }
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            const bool none = top[j] == -INFINITY;
            const float less = none ? 0.0f : top[j];
            float sum[2] = {}; /* of each r: a shorter chain */
#pragma unroll
            for (int u = 0; u < B; u++) {
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const float p = ptx_exp2(fmaf(x[u][r][j], unit[j], -less));
                    sum[r] += p;
                    x[u][r][j] = p;
                }
            }
            factor[j] = none ? 0.0f : ptx_exp2(top[j] - m[j]);
            /* By bits, so that no branch is made of it: what a row does not see may be infinite. */
            const uint32_t counts = none ? 0u : ~0u;
            l[j] =
                fmaf(factor[j], __uint_as_float(__float_as_uint(sum[0] + sum[1]) & counts), l[j]);
        }
    }
};

#endif /* KERNELS_CUDA_ATTN_SHARED_CUH */
