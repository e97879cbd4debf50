/* kernels/cuda/attn_coded.cuh - segments of 1 to 4 bits whose levels are int8 (attn_coded_pairs.cuh): products are int8 and
 * exact.
 *
 * Keys:    logit = norm * (levels . query codes), per segment.
 * Values:  weight * norm as an integer of 16 bits, in a unit that the largest norm of the page decides (one multiply-add
 *          puts it into a mantissa), its bytes by permutation, transposed into the right-hand factor.
 * Levels of 4 bits are m + 1/2: the halves are added as half the sum of the other factor.  Those of 1 bit are twice
 * the bit less one: of V the sum of the other factor is taken away, of K the sum of the queries. */
#ifndef KERNELS_CUDA_ATTN_CODED_CUH
#define KERNELS_CUDA_ATTN_CODED_CUH

#include "kernels/cuda/attn_coded_pairs.cuh"
#include "kernels/cuda/attn_loader.cuh"

#include <cuda_fp16.h>

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

/* x [8][2][NC] += norm * (levels . query) of the segment, of N blocks from u0 on; code_sum: of the query's codes. */
template <int B, class C, int N>
static __device__ __forceinline__ void
coded_logits(const uint8_t *norms, int u0, const coded_sums<C::NC> (&sums)[N],
             const int (&code_sum)[C::NC], float (&x)[8][2][C::NC])
{
    constexpr float kTop = CUDA_BIT_LEVEL;
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
                    const int z = sums[u].template get<128>(r, j);
                    float &to = x[u0 + u][r][j];
                    float dot = (float)z;
                    if constexpr (B == 1) {
                        const int place = u % 4 + 4 * r; /* of the bit; 7 is a byte's sign */
                        dot = fmaf(dot, (place == 7 ? -2.0f : 2.0f) * kTop / (float)(1 << place),
                                   -kTop * (float)code_sum[j]);
                    }
                    to = fmaf(dot, r == 0 ? norm.x : norm.y, to);
                }
            }
        }
    }
}

/* sums += squares a and b, side by side, times the factor: {high, high}, and with NC = 2 {low, low}, of which keys' high
 * ones are signed.  Beside nothing: half the factor. */
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

template <bool KEYS, int PARTS, int NC>
static __device__ __forceinline__ void
coded_multiply(coded_sums<NC> &sums, const coded_pair<PARTS> &a, const coded_pair<PARTS> &b,
               const uint32_t (&factor)[2 * NC])
{
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        coded_multiply<KEYS>(sums, a.word[i], b.word[i], factor);
    }
}

template <int PARTS, int NC>
static __device__ __forceinline__ void
coded_multiply_half(coded_sums<NC> &sums, const coded_pair<PARTS> &a, const uint32_t (&factor)[NC])
{
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        ptx_mma_s8s8_half(sums.high, a.word[i][0], a.word[i][1], factor[0]);
        if constexpr (NC == 2) {
            ptx_mma_s8u8_half(sums.low, a.word[i][0], a.word[i][1], factor[1]);
        }
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

/* sums += levels . query of N blocks: 32 dims; half_bytes from one half of the page to the other. */
template <int B, int PARTS, int NC, int N>
static __device__ __forceinline__ void
coded_keys_step(const uint8_t *tile, int half_bytes, const coded_levels<B, PARTS> &levels,
                const uint32_t *query, int step, coded_sums<NC> (&sums)[N])
{
    uint32_t q[2 * NC];
    coded_load_query<NC>(query, step, q);
#pragma unroll
    for (int h = 0; h < N / 4; h++) {
        uint32_t w[2 * B];
        coded_pair<PARTS> a[8];
        coded_load<2 * B>(tile + h * half_bytes + step * 256 * B, w);
        coded_pairs<B>(w, levels, a);
#pragma unroll
        for (int u = 0; u < 4; u++) {
            coded_multiply<true>(sums[4 * h + u], a[2 * u], a[2 * u + 1], q);
        }
    }
}

/* The same of the 16 dims after n_steps. */
template <int B, int PARTS, int NC, int N>
static __device__ __forceinline__ void
coded_keys_rest(const uint8_t *tile, int half_bytes, const coded_levels<B, PARTS> &levels,
                const uint32_t *query, int n_steps, coded_sums<NC> (&sums)[N])
{
    const int lane = threadIdx.x % 32;
    uint32_t q[NC];
    if constexpr (NC == 2) {
        *(uint2 *)q = ((const uint2 *)query)[2 * n_steps * 32 + lane];
    } else {
        q[0] = query[2 * n_steps * 32 + lane];
    }
#pragma unroll
    for (int h = 0; h < N / 4; h++) {
        uint32_t w[B];
        coded_pair<PARTS> a[4];
        coded_load<B>(tile + h * half_bytes + n_steps * 256 * B, w);
        coded_pairs<B>(w, levels, a);
#pragma unroll
        for (int u = 0; u < 4; u++) {
            coded_multiply_half(sums[4 * h + u], a[u], q);
        }
    }
}

/* Keys of one segment: x [8][2][NC] += norm * (levels . query). */
template <int B, class C>
static __device__ __forceinline__ void
coded_keys(const uint8_t *side, const cuda_segment &g, int n_dims, const uint32_t *query,
           const int (&code_sum)[C::NC], float (&x)[8][2][C::NC])
{
    constexpr int kAtOnce = C::KB == 0 && C::NC == 1 ? 8 : 4; /* blocks: registers allow no more */
    constexpr int kUnroll = C::KB == 0 ? 1 : C::D / 32;
    const coded_levels<B, coded_parts<B, C::NC>> levels(g);
    const int n_steps = n_dims / 32;
    const int half_bytes = 8 * n_dims * B;
    const uint32_t *q0 = query + g.first_dim / 16 * 32 * C::NC;
    int half_sum[C::NC];
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        half_sum[j] = code_sum[j] >> 1;
    }
#pragma unroll
    for (int u0 = 0; u0 < 8; u0 += kAtOnce) {
        const uint8_t *tile = side + g.codes_at + u0 / 4 * half_bytes;
        coded_sums<C::NC> sums[kAtOnce];
#pragma unroll
        for (int u = 0; u < kAtOnce; u++) {
            if constexpr (B == 4) {
                sums[u].start(half_sum);
            } else {
                sums[u].clear();
            }
        }
        int s = 0;
        if (n_dims % 32 != 0) { /* apart from the loop, so that nothing needs to be cleared */
            coded_keys_rest<B>(tile, half_bytes, levels, q0, n_steps, sums);
        } else {
            coded_keys_step<B>(tile, half_bytes, levels, q0, s++, sums);
        }
#pragma unroll kUnroll
        for (; s < n_steps; s++) {
            coded_keys_step<B>(tile, half_bytes, levels, q0, s, sums);
        }
        coded_logits<B, C>(side + g.norms_at, u0, sums, code_sum, x);
    }
}

/* What values of a width leave out, as a share of the sum of the weights. */
static __device__ __forceinline__ float coded_offset(int bits)
{
    return bits == 4 ? 0.5f : bits == 1 ? -1.0f : 0.0f;
}

/* Weights of a page times the norms of a segment, as right-hand factors; unit: what one is, relative to m. */
template <class C>
struct coded_weights {
    uint32_t high[8];
    uint32_t low[C::NC == 2 ? 8 : 1];
    int offset[C::NC]; /* a share of the sum over all tokens */

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
                                         float share, float *unit_out)
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
                    if (share != 0.0f) {
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
            offset[j] = 0;
            if (share != 0.0f) {
#pragma unroll
                for (int step = 4; step < 32; step *= 2) {
                    sum[j] += __shfl_xor_sync(~0u, sum[j], step);
                }
                offset[j] = __float2int_rn(__fdividef(share * sum[j], unit));
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
    const coded_levels<B, coded_parts<B, C::NC>> levels(g);
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
        if constexpr (B == 4 || B == 1) {
            sums.start(weights.offset);
        } else {
            sums.clear();
        }
        coded_pair<coded_parts<B, C::NC>> a[8];
        coded_pairs<B>(w, levels, a);
#pragma unroll
        for (int t = 0; t < 8; t += 2) {
            uint32_t f[2 * C::NC];
            weights.factor(t, f);
            if constexpr (B == 1) {
                a[t].shift(fragment_bit_of(8, t));
                a[t + 1].shift(fragment_bit_of(8, t + 1));
            }
            coded_multiply<false>(sums, a[t], a[t + 1], f);
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                float &to = state.o[d][r][j];
                to = fmaf((float)sums.template get<256>(r, j),
                          B == 1 ? CUDA_BIT_LEVEL * factor[j] : factor[j], to);
            }
        }
    }
}

#endif /* KERNELS_CUDA_ATTN_CODED_CUH */
