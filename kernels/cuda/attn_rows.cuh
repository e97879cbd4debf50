/* kernels/cuda/attn_rows.cuh - attention on bf16 values: a product with split factors, pages of the dense kernel, and
 * tiles of open rows, which every kernel has. */
#ifndef KERNELS_CUDA_ATTN_ROWS_CUH
#define KERNELS_CUDA_ATTN_ROWS_CUH

#include "kernels/cuda/attn_loader.cuh"
#include "kernels/cuda/attn_query.cuh"

/* A right-hand factor of 16 rows as high and low 16-bit floats. */
template <int NC>
struct attn_factor {
    uint32_t word[2 * NC]; /* NC = 2: high 0, high 1, low 0, low 1; NC = 1: columns alternate */

    /* From shared memory, as attn_query lies. */
    __device__ void load(const uint32_t *from, int block)
    {
        const int lane = threadIdx.x % 32;
        if constexpr (NC == 2) {
            *(uint4 *)word = ((const uint4 *)from)[block * 32 + lane];
        } else {
            *(uint2 *)word = ((const uint2 *)from)[block * 32 + lane];
        }
    }
};

/* d [4]: products of one 16-row block; sums of row r of the block with query row j. */
template <int NC, bool FP16>
static __device__ __forceinline__ void attn_multiply(float (&d)[4], uint4 a,
                                                     const attn_factor<NC> &b)
{
    if constexpr (FP16) {
        ptx_mma_fp16(d, a, b.word[0], b.word[1]);
        if constexpr (NC == 2) {
            ptx_mma_fp16(d, a, b.word[2], b.word[3]);
        }
    } else {
        ptx_mma_bf16(d, a, b.word[0], b.word[1]);
        if constexpr (NC == 2) {
            ptx_mma_bf16(d, a, b.word[2], b.word[3]);
        }
    }
}

template <int NC>
static __device__ __forceinline__ float attn_product(const float (&d)[4], int r, int j)
{
    return NC == 2 ? d[2 * r + j] : d[2 * r] + d[2 * r + 1];
}

/* Weights of 16 tokens, p [r][j] of token 8r + g, as a factor; tokens in plain order. */
template <int NC>
static __device__ __forceinline__ attn_factor<NC> attn_weights_bf16(const float (&p)[2][NC])
{
    attn_factor<NC> f;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if constexpr (NC == 2) {
            const attn_split s = attn_split_bf16(p[r][0], p[r][1]);
            f.word[r] = ptx_transpose(s.high);
            f.word[2 + r] = ptx_transpose(s.low);
        } else {
            const __nv_bfloat16 high = __float2bfloat16_rn(p[r][0]);
            const __nv_bfloat162 both =
                __halves2bfloat162(high, __float2bfloat16_rn(p[r][0] - __bfloat162float(high)));
            f.word[r] = ptx_transpose(*(const uint32_t *)&both);
        }
    }
    return f;
}

/* The unit of logits of bf16 keys. */
template <class C>
static __device__ __forceinline__ float attn_rows_unit(const attn_job &job)
{
    return ATTN_LOG2E * job.a.scale;
}

/* A page of the dense kernel. */
template <class C>
static __device__ void attn_dense_page(const attn_job &job, const attn_query<C> &query,
                                       const attn_piece &piece, attn_loader<C> &loader,
                                       attn_state<C> &state, const bool (&sees)[C::NC])
{
    const int lane = threadIdx.x % 32;
    float x[8][2][C::NC];
#pragma unroll
    for (int u = 0; u < 8; u++) {
        const uint8_t *p = loader.template take<0>();
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int s = 0; s < C::blocks; s++) {
            attn_factor<C::NC> q;
            q.load(query.rows, s);
            attn_multiply<C::NC, false>(d, *(const uint4 *)(p + s * 512 + lane * 16), q);
        }
        loader.template give<0>(piece);
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            x[u][0][j] = attn_product<C::NC>(d, 0, j);
            x[u][1][j] = attn_product<C::NC>(d, 1, j);
        }
    }
    float unit[C::NC];
    float factor[C::NC];
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        unit[j] = attn_rows_unit<C>(job);
    }
    state.template weigh<8>(x, unit, sees, factor);
    attn_factor<C::NC> w[8];
#pragma unroll
    for (int u = 0; u < 8; u++) {
        w[u] = attn_weights_bf16<C::NC>(x[u]);
    }
#pragma unroll
    for (int b = 0; b < C::blocks; b++) {
        const uint8_t *p = loader.template take<0>();
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int s = 0; s < 8; s++) {
            attn_multiply<C::NC, false>(d, *(const uint4 *)(p + s * 512 + lane * 16), w[s]);
        }
        loader.template give<0>(piece);
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                const float add = attn_product<C::NC>(d, r, j) * factor[j];
                state.o[b][r][j] += sees[j] ? add : 0.0f;
            }
        }
    }
}

/* Zero where the token of a bf16 pair is not below n: tokens 2c, 2c + 1, and 8 on, in two masks. */
static __device__ __forceinline__ uint32_t attn_pair_mask(int token, int n)
{
    return (token < n ? 0xffffu : 0u) | (token + 1 < n ? 0xffff0000u : 0u);
}

/* 16 rows of an open.  Rows that a query does not see may hold anything, NaN too, and a product would spread it:
 * values are read once for every number of rows that some query sees, those past it as zero. */
template <class C>
static __device__ void attn_open_tile(const attn_job &job, const attn_query<C> &query,
                                      const attn_piece &piece, attn_loader<C> &loader,
                                      attn_state<C> &state, attn_item item,
                                      const attn_place (&place)[C::NC])
{
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
    int n_seen[C::NC]; /* rows of this tile that the query row sees; may be below 0 or above 16 */
    float x[1][2][C::NC];
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        n_seen[j] = attn_rows_seen(job, place[j], item.block) - item.first_row;
    }
    /* Of a 16 x 16 square by ldmatrix: this lane's row and half. */
    const int matrix_row = lane % 16;
    const int matrix_col = lane / 16 * 8;
    {
        const uint32_t k =
            ptx_shared(loader.template take<0>()) + (uint32_t)(matrix_row * C::D + matrix_col) * 2;
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int s = 0; s < C::blocks; s++) {
            attn_factor<C::NC> q;
            q.load(query.rows, s);
            attn_multiply<C::NC, false>(d, ptx_load_matrices(k + s * 32), q);
        }
        loader.template give<0>(piece);
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            for (int r = 0; r < 2; r++) {
                x[0][r][j] = 8 * r + g < n_seen[j]
                                 ? attn_product<C::NC>(d, r, j) * attn_rows_unit<C>(job)
                                 : -INFINITY;
            }
        }
    }
    float unit[C::NC];
    bool sees[C::NC];
    float factor[C::NC];
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        unit[j] = 1.0f;
        sees[j] = n_seen[j] > 0;
    }
    state.template weigh<1>(x, unit, sees, factor);
    const attn_factor<C::NC> w = attn_weights_bf16<C::NC>(x[0]);

    const uint8_t *values = loader.template take<1>();
    /* Matrices as tokens 0..7 and 8..15 of dims 0..7, then of dims 8..15: transposed, a0 and a2, a1 and a3. */
    const uint32_t v = ptx_shared(values) + (uint32_t)(matrix_row * C::D + matrix_col) * 2;
    int done = 0; /* rows of queries that are served */
    for (;;) {
        int n = KERN_BLOCK_TOKENS; /* the next larger number of rows */
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            const int mine = min(n_seen[j], 16);
            n = mine > done ? min(n, mine) : n;
        }
        n = (int)__reduce_min_sync(~0u, (unsigned)n);
        if (n > 16) {
            break;
        }
        const uint32_t low = attn_pair_mask(lane % 4 * 2, n);
        const uint32_t high = attn_pair_mask(lane % 4 * 2 + 8, n);
#pragma unroll
        for (int b = 0; b < C::blocks; b++) {
            const uint4 t = ptx_load_matrices_transposed(v + b * 32);
            float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            attn_multiply<C::NC, false>(d, make_uint4(t.x & low, t.z & low, t.y & high, t.w & high),
                                        w);
#pragma unroll
            for (int r = 0; r < 2; r++) {
#pragma unroll
                for (int j = 0; j < C::NC; j++) {
                    const float add = attn_product<C::NC>(d, r, j) * factor[j];
                    state.o[b][r][j] += min(n_seen[j], 16) == n ? add : 0.0f;
                }
            }
        }
        done = n;
    }
    loader.template give<1>(piece);
}

#endif /* KERNELS_CUDA_ATTN_ROWS_CUH */
