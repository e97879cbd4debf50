/* kernels/cuda/attn_affine.cuh - affine pages: codes become fp16 by one mask, the mantissas of subnormal numbers, and
 * are multiplied by factors into which their scales are folded.
 *
 * Keys:    a query times K's scales is a factor of 16-bit floats for every group of tokens; query times minima, one
 *          number a group, is added to the logit.
 * Values:  weights times V's scales for every group of dims, and weights times minima, likewise.
 * Factors are two fp16 each, so that products are exact to 2^-24 of the largest factor.  What a mask leaves is code
 * times a power of two that is the same for a row of a band (fragment_order.h), and is undone on the sums. */
#ifndef KERNELS_CUDA_ATTN_AFFINE_CUH
#define KERNELS_CUDA_ATTN_AFFINE_CUH

#include "kernels/cuda/attn_rows.cuh"
#include "kernels/cuda/fragment_order.h"

#include <cuda_fp16.h>

/* What the sum of part p of a band is to be multiplied by. */
template <int B>
static __device__ constexpr float affine_unit(int part)
{
    return (float)(1 << (22 - B * (part % (8 / B))));
}

/* The fragment of square y of a band's two, from the B / 2 words of a lane. */
template <int B>
static __device__ __forceinline__ uint4 affine_square(const uint32_t *w, int y)
{
    uint32_t a[4];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int part = 2 * y + r;
        const uint32_t x = w[part * B / 8];
        const uint32_t mask = ((1u << B) - 1u) * 0x10001u << (2 + B * (part % (8 / B)));
        a[r] = x & mask;
        a[2 + r] = __funnelshift_r(x, x, 8) & mask;
    }
    return make_uint4(a[0], a[1], a[2], a[3]);
}

/* A factor before its scales: {high 0, low 0, high 1, low 1}; NC = 1: high in both columns of a row, low in the odd
 * one beside 0. */
template <int NC>
static __device__ __forceinline__ attn_factor<NC> affine_fold(uint4 q, uint32_t scale0,
                                                              uint32_t scale1)
{
    const uint32_t high[2] = {q.x, q.z};
    const uint32_t low[2] = {q.y, q.w};
    const uint32_t scale[2] = {scale0, scale1};
    attn_factor<NC> f;
#pragma unroll
    for (int b = 0; b < 2; b++) {
        const __half2 s = *(const __half2 *)&scale[b];
        const __half2 h = __hmul2_rn(*(const __half2 *)&high[b], s);
        if constexpr (NC == 2) {
            const __half2 left = __hfma2(*(const __half2 *)&high[b], s, __hneg2(h));
            const __half2 l = __hfma2(*(const __half2 *)&low[b], s, left);
            f.word[b] = *(const uint32_t *)&h;
            f.word[2 + b] = *(const uint32_t *)&l;
        } else { /* in odd columns what rounding left, in even ones h again */
            const __half2 minus_odd = __float2half2_rn(threadIdx.x / 4 % 2 == 0 ? 0.0f : -1.0f);
            const __half2 left = __hfma2(*(const __half2 *)&high[b], s, __hmul2_rn(h, minus_odd));
            const __half2 own = __hfma2(*(const __half2 *)&low[b], s, left);
            f.word[b] = *(const uint32_t *)&own;
        }
    }
    return f;
}

/* Sums of a band: d [y] of its square y; NC = 1: what belongs to low parts is in the odd columns. */
template <int NC>
struct affine_sums {
    float d[2][4];

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            d[i / 4][i % 4] = 0.0f;
        }
    }
    /* A square of columns, from its words of a lane. */
    template <int B>
    __device__ __forceinline__ void add(const uint32_t *w, const attn_factor<NC> &f)
    {
        const uint4 a[2] = {affine_square<B>(w, 0), affine_square<B>(w, 1)};
#pragma unroll
        for (int i = 0; i < 2 * NC; i += 2) {
#pragma unroll
            for (int y = 0; y < 2; y++) {
                ptx_mma_fp16(d[y], a[y], f.word[i], f.word[i + 1]);
            }
        }
    }
    __device__ __forceinline__ float get(int part, int j) const
    {
        const int i = part % 2 * 2;
        return NC == 2 ? d[part / 2][i + j] : d[part / 2][i] + d[part / 2][i + 1];
    }
};

/* Of d, products with the minima: groups are columns, high parts of factors the rows 0 .. 7, low ones 8 .. 15. */
template <int NC>
static __device__ __forceinline__ void affine_minima_of(const float (&d)[4], int group,
                                                        float (&out)[NC])
{
    const float sum = group % 2 == 0 ? d[0] + d[2] : d[1] + d[3];
#pragma unroll
    for (int j = 0; j < NC; j++) {
        const int row =
            (int)threadIdx.x % 4 * 2 + (NC == 2 ? j : 1); /* odd columns have both parts */
        out[j] = __shfl_sync(~0u, sum, row * 4 + group / 2);
    }
}

/* N squares of columns of a side: their factors before scales by square(s), their scales and minima in rows of
 * columns; calls band_done(band, sums, minima) for every band of 32 rows.  GROUP 0: g's. */
template <int B, int GROUP, int NC, int N, int BANDS, typename Square, typename Done>
static __device__ __forceinline__ void affine_multiply(const uint8_t *side, const cuda_segment &g,
                                                       Square square, Done band_done)
{
    const int lane = threadIdx.x % 32;
    const int shift = (GROUP != 0 ? GROUP : g.group) / 64; /* of bands to groups */
    const int n_groups = BANDS >> shift;
    constexpr int kStep = B == 2 ? 4 : 2;         /* squares whose words are whole vectors */
    constexpr int kColumns = FRAGMENT_SQUARE * 2; /* bytes of a square's scales */
    const uint8_t *codes = side + g.codes_at;
    const uint8_t *scales = side + g.norms_at + lane % 4 * 16;
    const uint8_t *minima = side + g.minima_at + lane % 4 * 16;
    float m[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int s = 0; s < N; s += 2) {
        const uint4 w = *(const uint4 *)(minima + (lane / 4 % n_groups * N + s) * kColumns);
        ptx_mma_fp16(m, square(s), w.x, w.y);
        ptx_mma_fp16(m, square(s + 1), w.z, w.w);
    }
    attn_factor<NC> f[N];
    float min[NC];
#pragma unroll
    for (int band = 0; band < BANDS; band++) {
        const int group = band >> shift;
        const bool begins = (band & ((1 << shift) - 1)) == 0; /* a group */
        affine_sums<NC> sums;
        sums.clear();
#pragma unroll
        for (int s = 0; s < N; s += kStep) {
            uint32_t w[kStep * B / 2];
#pragma unroll
            for (int v = 0; v < kStep * B / 8; v++) {
                ((uint4 *)w)[v] =
                    *(const uint4 *)(codes + ((band * N + s) * B / 8 + v) * 512 + lane * 16);
            }
#pragma unroll
            for (int i = 0; i < kStep; i += 2) {
                if (begins) {
                    const uint4 scale = *(const uint4 *)(scales + (group * N + s + i) * kColumns);
                    f[s + i] = affine_fold<NC>(square(s + i), scale.x, scale.y);
                    f[s + i + 1] = affine_fold<NC>(square(s + i + 1), scale.z, scale.w);
                }
                sums.template add<B>(w + i * B / 2, f[s + i]);
                sums.template add<B>(w + (i + 1) * B / 2, f[s + i + 1]);
            }
        }
        if (begins) {
            affine_minima_of<NC>(m, group, min);
        }
        band_done(band, sums, min);
    }
}

template <int B, class C>
static __device__ __forceinline__ void affine_keys(const attn_query<C> &query, const uint8_t *side,
                                                   const cuda_segment &g, float (&x)[8][2][C::NC])
{
    const uint4 *q = (const uint4 *)query.halves + threadIdx.x % 32;
    affine_multiply<B, C::group, C::NC, C::blocks, KERN_BLOCK_TOKENS / FRAGMENT_BAND>(
        side, g, [&](int s) { return q[s * 32]; },
        [&](int band, const affine_sums<C::NC> &sums, const float(&min)[C::NC]) {
#pragma unroll
            for (int p = 0; p < FRAGMENT_PARTS; p++) {
#pragma unroll
                for (int j = 0; j < C::NC; j++) {
                    x[2 * band + p / 2][p % 2][j] = fmaf(sums.get(p, j), affine_unit<B>(p), min[j]);
                }
            }
        });
}

/* Weights of 16 tokens, p [r][j] of token 8r + g, as a factor before its scales. */
template <int NC>
static __device__ __forceinline__ uint4 affine_weights(const float (&p)[2][NC])
{
    uint32_t high[2];
    uint32_t low[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if constexpr (NC == 2) {
            const attn_split s = attn_split_fp16(p[r][0], p[r][1]);
            high[r] = ptx_transpose(s.high);
            low[r] = ptx_transpose(s.low);
        } else {
            const __half h = __float2half_rn(p[r][0]);
            const __half2 both = __half2half2(h);
            const __half2 odd =
                __halves2half2(__float2half_rn(0.0f), __float2half_rn(p[r][0] - __half2float(h)));
            high[r] = ptx_transpose(*(const uint32_t *)&both);
            low[r] = ptx_transpose(*(const uint32_t *)&odd);
        }
    }
    return make_uint4(high[0], low[0], high[1], low[1]);
}

template <int B, class C>
static __device__ __forceinline__ void
affine_values(const uint8_t *side, const cuda_segment &g, const float (&p)[8][2][C::NC],
              const float (&factor)[C::NC], attn_state<C> &state)
{
    uint4 w[8];
#pragma unroll
    for (int u = 0; u < 8; u++) {
        w[u] = affine_weights<C::NC>(p[u]);
    }
    affine_multiply<B, C::group, C::NC, 8, C::D / FRAGMENT_BAND>(
        side, g, [&](int s) { return w[s]; },
        [&](int band, const affine_sums<C::NC> &sums, const float(&min)[C::NC]) {
#pragma unroll
            for (int i = 0; i < FRAGMENT_PARTS; i++) {
#pragma unroll
                for (int j = 0; j < C::NC; j++) {
                    float &to = state.o[2 * band + i / 2][i % 2][j];
                    to = fmaf(sums.get(i, j), factor[j] * affine_unit<B>(i),
                              fmaf(min[j], factor[j], to));
                }
            }
        });
}

/* A side of bf16 beside an affine one, in one chunk. */
template <class C>
static __device__ __forceinline__ void
affine_plain_keys(const attn_query<C> &query, const uint8_t *codes, float (&x)[8][2][C::NC])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int u = 0; u < 8; u++) {
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int s = 0; s < C::blocks; s++) {
            attn_factor<C::NC> q;
            q.load(query.rows, s);
            attn_multiply<C::NC, false>(
                d, *(const uint4 *)(codes + (u * C::blocks + s) * 512 + lane * 16), q);
        }
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            x[u][0][j] = attn_product<C::NC>(d, 0, j);
            x[u][1][j] = attn_product<C::NC>(d, 1, j);
        }
    }
}

template <class C>
static __device__ __forceinline__ void
affine_plain_values(const uint8_t *codes, const float (&p)[8][2][C::NC], const bool (&sees)[C::NC],
                    const float (&factor)[C::NC], attn_state<C> &state)
{
    const int lane = threadIdx.x % 32;
    attn_factor<C::NC> w[8];
#pragma unroll
    for (int u = 0; u < 8; u++) {
        w[u] = attn_weights_bf16<C::NC>(p[u]);
    }
#pragma unroll
    for (int b = 0; b < C::blocks; b++) {
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int s = 0; s < 8; s++) {
            attn_multiply<C::NC, false>(d, *(const uint4 *)(codes + (b * 8 + s) * 512 + lane * 16),
                                        w[s]);
        }
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

template <class C>
static __device__ __forceinline__ void affine_page(const attn_job &job, const attn_query<C> &query,
                                                   const attn_piece &piece, const cuda_head &format,
                                                   attn_loader<C> &loader, attn_state<C> &state,
                                                   const bool (&sees)[C::NC])
{
    const cuda_segment &keys = format.side[0].segments[0];
    const cuda_segment &values = format.side[1].segments[0];
    float x[8][2][C::NC];
    float unit[C::NC];
    float factor[C::NC];
    bool all_see = true;
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        unit[j] = query.unit[threadIdx.x % 4 * C::NC + j];
        all_see = all_see && sees[j];
    }
    {
        const uint8_t *k = loader.template take<0>();
        const int bits = C::KB != 0 ? C::KB : keys.bits;
        if (bits == 2) {
            affine_keys<2, C>(query, k, keys, x);
        } else if (bits == 4) {
            affine_keys<4, C>(query, k, keys, x);
        } else if (bits == 8) {
            affine_keys<8, C>(query, k, keys, x);
        } else {
            affine_plain_keys<C>(query, k + keys.codes_at, x);
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                unit[j] = attn_rows_unit<C>(job);
            }
        }
        loader.template give<0>(piece);
    }
    state.template weigh<8>(x, unit, sees, factor);
    if (!__all_sync(~0u, all_see)) { /* weights of rows that do not see the page may be infinite */
#pragma unroll
        for (int i = 0; i < 16 * C::NC; i++) {
            float &p = x[i / C::NC / 2][i / C::NC % 2][i % C::NC];
            p = sees[i % C::NC] ? p : 0.0f;
        }
    }
    {
        const uint8_t *v = loader.template take<1>();
        const int bits = C::VB != 0 ? C::VB : values.bits;
        if (bits == 2) {
            affine_values<2, C>(v, values, x, factor, state);
        } else if (bits == 4) {
            affine_values<4, C>(v, values, x, factor, state);
        } else if (bits == 8) {
            affine_values<8, C>(v, values, x, factor, state);
        } else {
            affine_plain_values<C>(v + values.codes_at, x, sees, factor, state);
        }
        loader.template give<1>(piece);
    }
}

#endif /* KERNELS_CUDA_ATTN_AFFINE_CUH */
