/* kernels/cuda/attn_wide.cuh - segments of 5 to 8 bits: levels of 16 bits as two int8 tables in shared memory, in place
 * of the byte permutation; beside that as attn_coded.cuh.
 *
 * level = high + low / 256. */
#ifndef KERNELS_CUDA_ATTN_WIDE_CUH
#define KERNELS_CUDA_ATTN_WIDE_CUH

#include "kernels/cuda/attn_coded.cuh"
#include "kernels/cuda/attn_codes.cuh"

/* A table entry, {low, high, 0, 0}, of a level in units of 2^-16. */
static __device__ __forceinline__ uint32_t wide_entry(int32_t level)
{
    const int x = (level + 128) >> 8;
    const int high = (x + 128) >> 8;
    return (uint32_t)(x & 255) | (uint32_t)(high & 255) << 8;
}

/* Registers of a pair, row g and row g + 8. */
struct wide_pair {
    uint32_t high[2];
    uint32_t low[2];
};

/* Pair `pair` of N in the words of a lane. */
template <int B, int N>
static __device__ __forceinline__ wide_pair wide_look_up(const uint32_t (&w)[B * N / 4],
                                                         const uint32_t *table, int pair)
{
    const uint2 codes = attn_codes_of(N, B, pair, [&](int i) { return w[i]; });
    wide_pair p;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const uint32_t c = r == 0 ? codes.x : codes.y;
        const uint32_t first = ptx_prmt(table[c & 255u], table[c >> 8 & 255u], 0x5140);
        const uint32_t second = ptx_prmt(table[c >> 16 & 255u], table[c >> 24], 0x5140);
        p.low[r] = ptx_prmt(first, second, 0x5410);
        p.high[r] = ptx_prmt(first, second, 0x7632);
    }
    return p;
}

/* Sums of the halves of a 16-row block's levels. */
template <int NC>
struct wide_sums {
    coded_sums<NC> high;
    coded_sums<NC> low;

    __device__ void clear()
    {
        high.clear();
        low.clear();
    }
    /* += squares a and b, side by side, times the factor. */
    template <bool KEYS>
    __device__ __forceinline__ void add(const wide_pair &a, const wide_pair &b,
                                        const uint32_t (&factor)[2 * NC])
    {
        coded_multiply<KEYS>(high, a.high, b.high, factor);
        coded_multiply<KEYS>(low, a.low, b.low, factor);
    }
    template <int HIGH_STEP>
    __device__ float get(int r, int j) const
    {
        return fmaf((float)low.template get<HIGH_STEP>(r, j), 1.0f / 256.0f,
                    (float)high.template get<HIGH_STEP>(r, j));
    }
};

/* Keys of one segment: x [8][2][NC] += norm * (levels . query). */
template <int B, class C>
static __device__ __forceinline__ void wide_keys(const uint8_t *side, const cuda_segment &g,
                                                 const uint32_t *table, const uint32_t *query,
                                                 float (&x)[8][2][C::NC])
{
    constexpr int kAtOnce = 4 / C::NC; /* blocks: registers allow no more */
    const int lane = threadIdx.x % 32;
    const int n_steps = g.n_dims / 32;
    const uint32_t *q0 = query + g.first_dim / 16 * 32 * C::NC;
#pragma unroll
    for (int u0 = 0; u0 < 8; u0 += kAtOnce) {
        const uint8_t *tile = side + g.codes_at + u0 / 4 * 8 * g.n_dims * B;
        wide_sums<C::NC> sums[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; i++) {
            sums[i].clear();
        }
#pragma unroll 1
        for (int s = 0; s < n_steps; s++) {
            uint32_t w[2 * B];
            uint32_t q[2 * C::NC];
            coded_load<2 * B>(tile + s * 256 * B, w);
            coded_load_query<C::NC>(q0, s, q);
#pragma unroll
            for (int i = 0; i < kAtOnce; i++) {
                const int pair = (u0 + i) % 4 * 2;
                sums[i].template add<true>(wide_look_up<B, 8>(w, table, pair),
                                           wide_look_up<B, 8>(w, table, pair + 1), q);
            }
        }
        if (g.n_dims % 32 != 0) { /* a square beside nothing */
            uint32_t w[B];
            uint32_t q[2 * C::NC] = {};
            coded_load<B>(tile + n_steps * 256 * B, w);
            if constexpr (C::NC == 2) {
                const uint2 both = ((const uint2 *)q0)[2 * n_steps * 32 + lane];
                q[0] = both.x;
                q[2] = both.y;
            } else {
                q[0] = q0[2 * n_steps * 32 + lane];
            }
#pragma unroll
            for (int i = 0; i < kAtOnce; i++) {
                const wide_pair a = wide_look_up<B, 4>(w, table, (u0 + i) % 4);
                sums[i].template add<true>(a, a, q);
            }
        }
        const __half2 *norms = (const __half2 *)(side + g.norms_at + lane / 4 * 32);
#pragma unroll
        for (int i = 0; i < kAtOnce; i++) {
            const float2 norm = __half22float2(norms[u0 + i]);
#pragma unroll
            for (int r = 0; r < 2; r++) {
#pragma unroll
                for (int j = 0; j < C::NC; j++) {
                    float &to = x[u0 + i][r][j];
                    to = fmaf(sums[i].template get<128>(r, j), r == 0 ? norm.x : norm.y, to);
                }
            }
        }
    }
}

/* Values of one segment: o of its dims += factor * (levels . weights). */
template <int B, class C>
static __device__ __forceinline__ void
wide_values(const uint8_t *side, const cuda_segment &g, const uint32_t *table,
            const coded_weights<C> &weights, const float (&factor)[C::NC], attn_state<C> &state)
{
#pragma unroll 1
    for (int d = 0; d < g.n_dims / 16; d++) {
        uint32_t w[2 * B];
        coded_load<2 * B>(side + g.codes_at + d * 256 * B, w);
        wide_sums<C::NC> sums;
        sums.clear();
#pragma unroll
        for (int t = 0; t < 8; t += 2) {
            uint32_t k[2 * C::NC];
            weights.factor(t, k);
            sums.template add<false>(wide_look_up<B, 8>(w, table, t),
                                     wide_look_up<B, 8>(w, table, t + 1), k);
        }
        const int at = g.first_dim / 16 + d;
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                const float add = sums.template get<256>(r, j);
#pragma unroll
                for (int b = 0; b < C::blocks; b++) {
                    float &to = state.o[b][r][j];
                    to = b == at ? fmaf(add, factor[j], to) : to;
                }
            }
        }
    }
}

#endif /* KERNELS_CUDA_ATTN_WIDE_CUH */
