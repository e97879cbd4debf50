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
    static constexpr int slots = FAMILY_ == CUDA_DENSE ? 6 : 2;
    static constexpr int pitch = D_ + (NC_ == 2 ? 4 : 8); /* of staged rows: no bank conflicts */
    /* Of queries as fp16. */
    static constexpr int half_words = FAMILY_ == CUDA_TABLE    ? blocks * 32 * 2 * NC_
                                      : FAMILY_ == CUDA_AFFINE ? blocks * 32 * 4
                                                               : 1;
};

/* Query rows as right-hand factors: [D / 16][32 lanes]. */
template <class C>
struct attn_query {
    alignas(16)
        uint32_t codes[C::blocks * 32 * C::NC]; /* int8: {high, low}; of the table kernel: unused */
    alignas(
        16) uint32_t rows[C::blocks * 32 * 2 * C::NC]; /* bf16: {high 0, high 1, low 0, low 1} */
    alignas(16) uint32_t halves[C::half_words]; /* fp16, the same; affine: {high, low} twice */
    float unit[ATTN_MAX_ROWS];        /* base-2 logit = unit * what codes or halves give */
    float inverse_top[ATTN_MAX_ROWS]; /* of the table kernel: halves are of q * inverse_top */
    int32_t half_sum[KERN_MAX_SEGMENTS]
                    [ATTN_MAX_ROWS]; /* 4 bits: the halves that codes leave out */
};

struct attn_piece { /* of a head, for one CTA */
    attn_head head;
    int32_t first; /* items */
    int32_t n_pages;
    int32_t n_open_tiles; /* of 16 rows */
    bool begins;          /* it has the first item */
    bool ends;            /* and the tail */
    bool is_there;
    int64_t last_position; /* of the tile's last query */
    int64_t first_position;
};

template <class C>
struct attn_shared {
    attn_query<C> query;
    alignas(16) cuda_head format;
    attn_piece piece;
    float2 ml[16][ATTN_MAX_ROWS]; /* of each warp; then x is its weight */
    float2 total[ATTN_MAX_ROWS];  /* maximum and sum of the CTA */
};

/* The position of a query row of the piece; rows past the last are like the last. */
template <class C>
static __device__ int64_t attn_row_position(const attn_job &job, const attn_piece &p, int row)
{
    const int t = (p.head.tile * C::R + row) / job.group;
    return p.head.seq.position + min(t, p.head.seq.n_tokens - 1);
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
            float sum = 0.0f;
#pragma unroll
            for (int u = 0; u < B; u++) {
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    const float p = ptx_exp2(fmaf(x[u][r][j], unit[j], -less));
                    sum += p;
                    x[u][r][j] = p;
                }
            }
            factor[j] = none ? 0.0f : ptx_exp2(top[j] - m[j]);
            l[j] = sees[j] && !none ? fmaf(factor[j], sum, l[j]) : l[j];
        }
    }
};

#endif /* KERNELS_CUDA_ATTN_SHARED_CUH */
