/* kernels/cuda/attn_table.cuh - pages of any widths: centroids from a table in shared memory, bf16 segments as
 * they are, products of 16-bit floats.  The general way, not the fast one. */
#ifndef KERNELS_CUDA_ATTN_TABLE_CUH
#define KERNELS_CUDA_ATTN_TABLE_CUH

#include "kernels/cuda/attn_codes.cuh"
#include "kernels/cuda/attn_rows.cuh"
#include "kernels/cuda/fragment_order.h"

static __device__ __forceinline__ uint2 table_codes(const uint8_t *tile, int n_pairs, int bits,
                                                    int pair)
{
    const int lane = threadIdx.x % 32;
    const int n_words = n_pairs * bits / 4;
    return attn_codes_of(n_pairs, bits, pair, [&](int w) {
        return *(const uint32_t *)(tile + fragment_word_at(n_words, w, lane));
    });
}

/* d += (a pair's centroids) factor; the fragment's columns (4c, 4c + 1), (4c + 2, 4c + 3) of lane c as the two halves of
 * 16.  A centroid is two fp16; the product of the two low parts is left out. */
template <int NC>
static __device__ __forceinline__ void table_multiply(float (&d)[4], const uint32_t *table,
                                                      uint2 codes, const attn_factor<NC> &b)
{
    uint32_t high[4];
    uint32_t low[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const uint32_t c = (i % 2 == 0 ? codes.x : codes.y) >> (i / 2 * 16);
        const uint32_t first = table[c & 255u];
        const uint32_t second = table[c >> 8 & 255u];
        high[i] = ptx_prmt(first, second, 0x5410);
        low[i] = ptx_prmt(first, second, 0x7632);
    }
    attn_multiply<NC, true>(d, make_uint4(high[0], high[1], high[2], high[3]), b);
    ptx_mma_fp16(d, make_uint4(low[0], low[1], low[2], low[3]), b.word[0], b.word[1]);
}

/* Weights, p [r][j] of token 8r + g, as a factor in the order of V's pairs. */
template <int NC>
static __device__ __forceinline__ attn_factor<NC> table_weights(const float (&p)[2][NC])
{
    attn_factor<NC> f;
    uint32_t t[2][2]; /* [r][high or low] */
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if constexpr (NC == 2) {
            const attn_split s = attn_split_fp16(p[r][0], p[r][1]);
            t[r][0] = ptx_transpose(s.high);
            t[r][1] = ptx_transpose(s.low);
        } else {
            const __half high = __float2half_rn(p[r][0]);
            const __half2 both =
                __halves2half2(high, __float2half_rn(p[r][0] - __half2float(high)));
            t[r][0] = ptx_transpose(*(const uint32_t *)&both);
        }
    }
#pragma unroll
    for (int i = 0; i < NC; i++) {
        f.word[2 * i] = ptx_prmt(t[0][i], t[1][i], 0x5410);
        f.word[2 * i + 1] = ptx_prmt(t[0][i], t[1][i], 0x7632);
    }
    return f;
}

template <class C>
static __device__ void table_keys(const attn_query<C> &query, const uint32_t *halves,
                                  const uint8_t *side, const cuda_segment &g,
                                  const float (&inverse_top)[C::NC], float (&x)[8][2][C::NC])
{
    const int lane = threadIdx.x % 32;
    const bool plain = g.bits == 16;
#pragma unroll
    for (int u = 0; u < 8; u++) {
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (int s = 0; s < g.n_dims / 16; s++) {
            attn_factor<C::NC> q;
            q.load(plain ? query.rows : query.halves, g.first_dim / 16 + s);
            if (plain) {
                const uint8_t *square = side + g.codes_at + u * 32 * g.n_dims + s * 512;
                attn_multiply<C::NC, false>(d, *(const uint4 *)(square + lane * 16), q);
                continue;
            }
            const int n_steps = (g.n_dims + 31) / 32;
            const fragment_tile t = fragment_tile_at(0, g.n_dims, g.bits, u / 4 * n_steps + s / 2);
            const int pair = t.n_pairs == 8 ? u % 4 * 2 + s % 2 : u % 4;
            const uint2 codes = table_codes(side + g.codes_at + t.offset, t.n_pairs, g.bits, pair);
            table_multiply<C::NC>(d, halves + g.halves, codes, q);
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint16_t *norm =
                (const uint16_t *)(side + g.norms_at) + lane / 4 * 16 + 2 * u + r;
            const float k = plain ? 0.0f : __half2float(__ushort_as_half(*norm));
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                x[u][r][j] =
                    fmaf(attn_product<C::NC>(d, r, j), plain ? inverse_top[j] : k, x[u][r][j]);
            }
        }
    }
}

template <class C>
static __device__ void table_values(const uint32_t *halves, const uint8_t *side,
                                    const cuda_segment &g, const float (&p)[8][2][C::NC],
                                    const bool (&sees)[C::NC], const float (&factor)[C::NC],
                                    attn_state<C> &state)
{
    const int lane = threadIdx.x % 32;
    const bool plain = g.bits == 16;
    const uint16_t *norms = (const uint16_t *)(side + g.norms_at) + lane / 4 * 16;
    float top = 0.0f;
    for (int i = 0; i < 16 && !plain; i++) {
        const float n = __half2float(__ushort_as_half(norms[i]));
        top = n > top || isnan(n) ? n : top;
    }
    for (int step = 4; step < 32; step *= 2) {
        const float other = __shfl_xor_sync(~0u, top, step);
        top = other > top || isnan(other) ? other : top;
    }
    const float inverse = 1.0f / fmaxf(top, 1e-7f);
    const float unit = plain ? 1.0f : top * g.scale;
    attn_factor<C::NC> w[8];
#pragma unroll
    for (int u = 0; u < 8; u++) {
        float scaled[2][C::NC];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const float k =
                plain ? 1.0f : __half2float(__ushort_as_half(norms[2 * u + r])) * inverse;
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                scaled[r][j] = p[u][r][j] * k;
            }
        }
        w[u] = plain ? attn_weights_bf16<C::NC>(scaled) : table_weights<C::NC>(scaled);
    }
    const int first = g.first_dim / 16;
#pragma unroll
    for (int b = 0; b < C::blocks; b++) {
        if (b < first || b >= first + g.n_dims / 16) {
            continue;
        }
        float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int s = 0; s < 8; s++) {
            if (plain) {
                const uint8_t *square = side + g.codes_at + (b - first) * 4096 + s * 512;
                attn_multiply<C::NC, false>(d, *(const uint4 *)(square + lane * 16), w[s]);
            } else {
                const uint8_t *tile = side + g.codes_at + (b - first) * 256 * g.bits;
                const uint2 codes = table_codes(tile, 8, g.bits, s);
                table_multiply<C::NC>(d, halves + g.halves, codes, w[s]);
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                const float add = attn_product<C::NC>(d, r, j) * (factor[j] * unit);
                state.o[b][r][j] += sees[j] ? add : 0.0f;
            }
        }
    }
}

/* halves: of the piece's head, in shared memory. */
template <class C>
static __device__ void table_page(const attn_query<C> &query, const uint32_t *halves,
                                  const attn_piece &piece, const cuda_head &format,
                                  attn_loader<C> &loader, attn_state<C> &state,
                                  const bool (&sees)[C::NC])
{
    const int c = threadIdx.x % 4;
    float x[8][2][C::NC] = {};
    float unit[C::NC];
    float inverse_top[C::NC];
    float factor[C::NC];
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        unit[j] = query.unit[c * C::NC + j];
        inverse_top[j] = query.inverse_top[c * C::NC + j];
    }
    const uint8_t *k = loader.template take<0>();
#pragma unroll 1
    for (int s = 0; s < format.side[0].n_segments; s++) {
        table_keys<C>(query, halves, k, format.side[0].segments[s], inverse_top, x);
    }
    loader.template give<0>(piece);
    state.template weigh<8>(x, unit, sees, factor);
    const uint8_t *v = loader.template take<1>();
#pragma unroll 1
    for (int s = 0; s < format.side[1].n_segments; s++) {
        table_values<C>(halves, v, format.side[1].segments[s], x, sees, factor, state);
    }
    loader.template give<1>(piece);
}

#endif /* KERNELS_CUDA_ATTN_TABLE_CUH */
