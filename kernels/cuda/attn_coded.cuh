/* kernels/cuda/attn_coded.cuh - segments of 1 to 4 bits whose levels are int8: four codes become four int8 levels of
 * a fragment in one byte permutation, products are int8 and exact.
 *
 * Keys:    logit = norm * (levels . query codes), per segment.
 * Values:  weight * norm as an integer of 16 bits, in a unit that the largest norm of the page decides (one multiply-add
 *          puts it into a mantissa), its bytes by permutation, transposed into the right-hand factor.
 * Levels of 4 bits are m + 1/2: the halves are added as half the sum of the other factor. */
#ifndef KERNELS_CUDA_ATTN_CODED_CUH
#define KERNELS_CUDA_ATTN_CODED_CUH

#include "kernels/cuda/attn_loader.cuh"

#include <cuda_fp16.h>

/* N words of a lane's part of a tile (fragment_order.h). */
template <int N>
static __device__ __forceinline__ void coded_load(const uint8_t *tile, uint32_t (&w)[N])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int v = 0; v < N / 4; v++) {
        *(uint4 *)&w[4 * v] = *(const uint4 *)(tile + v * 512 + lane * 16);
    }
    if constexpr (N % 4 >= 2) {
        *(uint2 *)&w[N / 4 * 4] = *(const uint2 *)(tile + N / 4 * 512 + lane * 8);
    }
    if constexpr (N % 2 == 1) {
        w[N - 1] = *(const uint32_t *)(tile + N / 4 * 512 + (N % 4 == 3 ? 256 : 0) + lane * 4);
    }
}

/* Eight selectors, a nibble each, into the two registers of a pair. */
static __device__ __forceinline__ void coded_look_up(uint32_t n, uint2 levels, uint32_t (&a)[2])
{
    a[0] = ptx_prmt(levels.x, levels.y, n);
    a[1] = ptx_prmt(levels.x, levels.y, n >> 16);
}

/* Magnitudes by selector; signs, spread over a byte by the permutation's sign mode, as a complement. */
static __device__ __forceinline__ void coded_look_up_signed(uint32_t w, uint2 levels,
                                                            uint32_t (&a)[2])
{
    const uint32_t n = w & 0x77777777u;
    a[0] = ptx_prmt(levels.x, levels.y, n) ^ ptx_prmt(w, 0, 0xba98);
    a[1] = ptx_prmt(levels.x, levels.y, n >> 16) ^ ptx_prmt(w << 4, 0, 0xba98);
}

/* B words -> four pairs. */
template <int B>
static __device__ __forceinline__ void coded_pairs(const uint32_t *w, uint2 levels,
                                                   uint32_t (&a)[4][2])
{
    if constexpr (B == 1) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            coded_look_up(w[0] >> k & 0x11111111u, levels, a[k]);
        }
    } else if constexpr (B == 2) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            coded_look_up(w[k] & 0x33333333u, levels, a[2 * k]);
            coded_look_up(w[k] >> 2 & 0x33333333u, levels, a[2 * k + 1]);
        }
    } else if constexpr (B == 3) {
#pragma unroll
        for (int k = 0; k < 3; k++) {
            coded_look_up(w[k] & 0x77777777u, levels, a[k]);
        }
        uint32_t last = w[0] >> 1 & 0x44444444u;
        last |= w[1] >> 2 & 0x22222222u;
        last |= w[2] >> 3 & 0x11111111u;
        coded_look_up(last, levels, a[3]);
    } else {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            coded_look_up_signed(w[k], levels, a[k]);
        }
    }
}

/* Integer sums of a 16-row block. */
template <int NC>
struct coded_sums {
    int high[4];
    int low[NC == 2 ? 4 : 1]; /* NC = 1: in the odd columns of high */

    __device__ void clear()
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            high[i] = 0;
        }
#pragma unroll
        for (int i = 0; i < (NC == 2 ? 4 : 1); i++) {
            low[i] = 0;
        }
    }
    /* Instead of zero: `add` in every row. */
    __device__ void start(const int (&add)[NC])
    {
        clear();
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if constexpr (NC == 2) {
                low[2 * r] = add[0];
                low[2 * r + 1] = add[1];
            } else {
                high[2 * r + 1] = add[0];
            }
        }
    }
    template <int HIGH_STEP>
    __device__ int get(int r, int j) const
    {
        return NC == 2 ? high[2 * r + j] * 256 + low[NC == 2 ? 2 * r + j : 0]
                       : high[2 * r] * HIGH_STEP + high[2 * r + 1];
    }
};

/* x [8][2][NC] += norm * sum, of N blocks from u0 on; add: to the sums of a row. */
template <class C, int N>
static __device__ __forceinline__ void
coded_logits(const uint8_t *norms, int u0, const coded_sums<C::NC> (&sums)[N],
             const int (&add)[C::NC], float (&x)[8][2][C::NC])
{
#pragma unroll
    for (int v = 0; v < N; v += 4) {
        const uint4 n = *(const uint4 *)(norms + threadIdx.x % 32 / 4 * 32 + (u0 + v) * 4);
#pragma unroll
        for (int u = v; u < v + 4; u++) {
            const float2 norm = __half22float2(((const __half2 *)&n)[u - v]);
#pragma unroll
            for (int r = 0; r < 2; r++) {
#pragma unroll
                for (int j = 0; j < C::NC; j++) {
                    const int z = sums[u].template get<128>(r, j) + add[j];
                    float &to = x[u0 + u][r][j];
                    to = fmaf((float)z, r == 0 ? norm.x : norm.y, to);
                }
            }
        }
    }
}

/* sums += squares a and b, side by side, times the factor: {high, high}, and with NC = 2 {low, low}, of which keys' high
 * ones are signed. */
template <bool KEYS, int NC>
static __device__ __forceinline__ void coded_multiply(coded_sums<NC> &sums, const uint32_t (&a)[2],
                                                      const uint32_t (&b)[2],
                                                      const uint32_t (&factor)[2 * NC])
{
    if constexpr (KEYS) {
        ptx_mma_s8s8(sums.high, a[0], a[1], b[0], b[1], factor[0], factor[1]);
    } else {
        ptx_mma_s8u8(sums.high, a[0], a[1], b[0], b[1], factor[0], factor[1]);
    }
    if constexpr (NC == 2) {
        ptx_mma_s8u8(sums.low, a[0], a[1], b[0], b[1], factor[2], factor[3]);
    }
}

/* The query's blocks 2 step and 2 step + 1 of a segment. */
template <int NC>
static __device__ __forceinline__ void coded_load_query(const uint32_t *query, int step,
                                                        uint32_t (&q)[2 * NC])
{
    const int lane = threadIdx.x % 32;
    if constexpr (NC == 2) {
        *(uint4 *)q = ((const uint4 *)query)[step * 32 + lane];
    } else {
        *(uint2 *)q = ((const uint2 *)query)[step * 32 + lane];
    }
}

/* Keys of one segment: x [8][2][NC] += norm * (levels . query). */
template <int B, class C>
static __device__ __forceinline__ void
coded_keys(const uint8_t *side, const cuda_segment &g, int n_dims, const uint32_t *query,
           const int (&half_sum)[C::NC], float (&x)[8][2][C::NC])
{
    constexpr int kAtOnce = C::KB == 0 && C::NC == 1 ? 8 : 4; /* blocks: registers allow no more */
    constexpr int kUnroll = C::KB == 0 ? 1 : C::D / 32;
    const int lane = threadIdx.x % 32;
    const uint2 levels = make_uint2(g.low, g.high);
    const int n_steps = n_dims / 32;
    const int half_bytes = 8 * n_dims * B;
    const uint32_t *q0 = query + g.first_dim / 16 * 32 * C::NC;
    const int none[C::NC] = {};
#pragma unroll
    for (int u0 = 0; u0 < 8; u0 += kAtOnce) {
        const uint8_t *tile = side + g.codes_at + u0 / 4 * half_bytes;
        coded_sums<C::NC> sums[kAtOnce];
#pragma unroll
        for (int u = 0; u < kAtOnce; u++) {
            sums[u].clear();
        }
#pragma unroll kUnroll
        for (int s = 0; s < n_steps; s++) {
            uint32_t q[2 * C::NC];
            coded_load_query<C::NC>(q0, s, q);
#pragma unroll
            for (int h = 0; h < kAtOnce / 4; h++) {
                uint32_t w[2 * B];
                coded_load<2 * B>(tile + h * half_bytes + s * 256 * B, w);
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    uint32_t a[4][2];
                    coded_pairs<B>(w + k * B, levels, a);
#pragma unroll
                    for (int v = 0; v < 2; v++) {
                        coded_multiply<true>(sums[4 * h + 2 * k + v], a[2 * v], a[2 * v + 1], q);
                    }
                }
            }
        }
        if (n_dims % 32 != 0) {
            uint32_t q[C::NC];
            if constexpr (C::NC == 2) {
                *(uint2 *)q = ((const uint2 *)q0)[2 * n_steps * 32 + lane];
            } else {
                q[0] = q0[2 * n_steps * 32 + lane];
            }
#pragma unroll
            for (int h = 0; h < kAtOnce / 4; h++) {
                uint32_t w[B];
                uint32_t a[4][2];
                coded_load<B>(tile + h * half_bytes + n_steps * 256 * B, w);
                coded_pairs<B>(w, levels, a);
#pragma unroll
                for (int u = 0; u < 4; u++) {
                    ptx_mma_s8s8_half(sums[4 * h + u].high, a[u][0], a[u][1], q[0]);
                    if constexpr (C::NC == 2) {
                        ptx_mma_s8u8_half(sums[4 * h + u].low, a[u][0], a[u][1], q[1]);
                    }
                }
            }
        }
        coded_logits<C>(side + g.norms_at, u0, sums, B == 4 ? half_sum : none, x);
    }
}

/* Weights of a page times the norms of a segment, as right-hand factors; unit: what one is, relative to m. */
template <class C>
struct coded_weights {
    uint32_t high[8];
    uint32_t low[C::NC == 2 ? 8 : 1];
    int half_sum[C::NC]; /* of all tokens */

    /* Of tokens 16 t .. 16 t + 31. */
    __device__ __forceinline__ void factor(int t, uint32_t (&f)[2 * C::NC]) const
    {
        f[0] = high[t];
        f[1] = high[t + 1];
        if constexpr (C::NC == 2) {
            f[2] = low[t];
            f[3] = low[t + 1];
        }
    }

    __device__ __forceinline__ void make(const uint8_t *norms, const float (&p)[8][2][C::NC],
                                         bool with_half_sum, float *unit_out)
    {
        const int lane = threadIdx.x % 32;
        uint4 n[2];
        n[0] = *(const uint4 *)(norms + lane / 4 * 32);
        n[1] = *(const uint4 *)(norms + lane / 4 * 32 + 16);
        const __half2 *norm = (const __half2 *)n;
        __half2 most = norm[0];
#pragma unroll
        for (int u = 1; u < 8; u++) {
            most = __hmax2_nan(most, norm[u]);
        }
        most = __hmax2_nan(most, __lowhigh2highlow(most));
#pragma unroll
        for (int step = 4; step < 32; step *= 2) {
            most = __hmax2_nan(most, __shfl_xor_sync(~0u, most, step));
        }
        /* unit: the power of two that makes the largest 15 or 16 bits of it; like every float from `one` on to twice that */
        const float top = __low2float(most);
        const uint32_t exponent = __float_as_uint(fmaxf(top, 1e-7f)) & 0x7f800000u;
        const float unit = __uint_as_float(exponent - (15u << 23));
        const float one = __uint_as_float(exponent + (8u << 23));
        *unit_out = top < INFINITY ? unit : NAN;
        float sum[C::NC] = {};
#pragma unroll
        for (int u = 0; u < 8; u++) {
            const float2 f = __half22float2(norm[u]);
            uint32_t z[2][C::NC];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float k = r == 0 ? f.x : f.y;
#pragma unroll
                for (int j = 0; j < C::NC; j++) {
                    z[r][j] = __float_as_uint(fmaf(p[u][r][j], k, one));
                    if (with_half_sum) {
                        sum[j] = fmaf(p[u][r][j], k, sum[j]);
                    }
                }
            }
            if constexpr (C::NC == 2) {
                const uint32_t t0 = ptx_transpose(ptx_prmt(z[0][0], z[0][1], 0x5410));
                const uint32_t t1 = ptx_transpose(ptx_prmt(z[1][0], z[1][1], 0x5410));
                high[u] = ptx_prmt(t0, t1, 0x7351);
                low[u] = ptx_prmt(t0, t1, 0x6240);
            } else {
                high[u] = ptx_transpose(ptx_prmt(z[0][0], z[1][0], 0x4051));
            }
        }
#pragma unroll
        for (int j = 0; j < C::NC; j++) {
            half_sum[j] = 0;
            if (with_half_sum) {
#pragma unroll
                for (int step = 4; step < 32; step *= 2) {
                    sum[j] += __shfl_xor_sync(~0u, sum[j], step);
                }
                half_sum[j] = __float2int_rn(__fdividef(0.5f * sum[j], unit));
            }
        }
    }
};

/* Values of one segment: o of its dims += factor * (levels . weights). */
template <int B, bool WHOLE, class C>
static __device__ __forceinline__ void
coded_values(const uint8_t *side, const cuda_segment &g, const coded_weights<C> &weights,
             const float (&factor)[C::NC], attn_state<C> &state)
{
    const uint2 levels = make_uint2(g.low, g.high);
    const int first = WHOLE ? 0 : g.first_dim / 16;
    const int n = WHOLE ? C::blocks : g.n_dims / 16;
#pragma unroll
    for (int d = 0; d < C::blocks; d++) {
        if (!WHOLE && (d < first || d >= first + n)) {
            continue;
        }
        uint32_t w[2 * B];
        coded_load<2 * B>(side + g.codes_at + (d - first) * 256 * B, w);
        coded_sums<C::NC> sums;
        if constexpr (B == 4) {
            sums.start(weights.half_sum);
        } else {
            sums.clear();
        }
#pragma unroll
        for (int k = 0; k < 2; k++) {
            uint32_t a[4][2];
            coded_pairs<B>(w + k * B, levels, a);
#pragma unroll
            for (int v = 0; v < 2; v++) {
                uint32_t f[2 * C::NC];
                weights.factor(4 * k + 2 * v, f);
                coded_multiply<false>(sums, a[2 * v], a[2 * v + 1], f);
            }
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                float &to = state.o[d][r][j];
                to = fmaf((float)sums.template get<256>(r, j), factor[j], to);
            }
        }
    }
}

#endif /* KERNELS_CUDA_ATTN_CODED_CUH */
