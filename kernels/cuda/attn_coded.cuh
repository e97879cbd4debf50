/* kernels/cuda/attn_coded.cuh - pages of 2, 3 and 4 bits whose levels are int8: four codes become four int8 levels of
 * a fragment in one byte permutation, products are int8 and exact.
 *
 * Keys:    logit = norm * (levels . query codes), per segment.
 * Values:  weight * norm as a 16-bit integer relative to the largest of the page (one multiply-add puts it into the
 *          mantissa of 2^23), its bytes by permutation, transposed into the right-hand factor.
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
    if constexpr (B == 2) {
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

/* Keys of one segment: x [8][2][NC] += norm * (levels . query). */
template <int B, class C>
static __device__ __forceinline__ void
coded_keys(const uint8_t *side, const cuda_segment &g, int n_dims, const uint32_t *query,
           const int (&half_sum)[C::NC], float (&x)[8][2][C::NC])
{
    const int lane = threadIdx.x % 32;
    const uint2 levels = make_uint2(g.low, g.high);
    const int n_steps = n_dims / 32;
    const uint32_t *q0 = query + g.first_dim / 16 * 32 * C::NC;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint8_t *tile = side + g.codes_at + half * 8 * n_dims * B;
        coded_sums<C::NC> sums[4];
#pragma unroll
        for (int u = 0; u < 4; u++) {
            sums[u].clear();
        }
#pragma unroll
        for (int s = 0; s < n_steps; s++) {
            uint32_t w[2 * B];
            uint32_t q[2][C::NC];
            coded_load<2 * B>(tile + s * 256 * B, w);
#pragma unroll
            for (int b = 0; b < 2; b++) {
                if constexpr (C::NC == 2) {
                    *(uint2 *)q[b] = ((const uint2 *)q0)[(2 * s + b) * 32 + lane];
                } else {
                    q[b][0] = q0[(2 * s + b) * 32 + lane];
                }
            }
#pragma unroll
            for (int k = 0; k < 2; k++) {
                uint32_t a[4][2];
                coded_pairs<B>(w + k * B, levels, a);
#pragma unroll
                for (int v = 0; v < 2; v++) {
                    coded_sums<C::NC> &to = sums[2 * k + v];
                    ptx_mma_s8s8(to.high, a[2 * v][0], a[2 * v][1], a[2 * v + 1][0],
                                 a[2 * v + 1][1], q[0][0], q[1][0]);
                    if constexpr (C::NC == 2) {
                        ptx_mma_s8u8(to.low, a[2 * v][0], a[2 * v][1], a[2 * v + 1][0],
                                     a[2 * v + 1][1], q[0][1], q[1][1]);
                    }
                }
            }
        }
        if (n_dims % 32 != 0) {
            uint32_t w[B];
            uint32_t a[4][2];
            uint32_t q[C::NC];
            coded_load<B>(tile + n_steps * 256 * B, w);
            if constexpr (C::NC == 2) {
                *(uint2 *)q = ((const uint2 *)q0)[2 * n_steps * 32 + lane];
            } else {
                q[0] = q0[2 * n_steps * 32 + lane];
            }
            coded_pairs<B>(w, levels, a);
#pragma unroll
            for (int u = 0; u < 4; u++) {
                ptx_mma_s8s8_half(sums[u].high, a[u][0], a[u][1], q[0]);
                if constexpr (C::NC == 2) {
                    ptx_mma_s8u8_half(sums[u].low, a[u][0], a[u][1], q[1]);
                }
            }
        }
        const uint4 norms = *(const uint4 *)(side + g.norms_at + lane / 4 * 32 + half * 16);
#pragma unroll
        for (int u = 0; u < 4; u++) {
            const float2 norm = __half22float2(((const __half2 *)&norms)[u]);
#pragma unroll
            for (int r = 0; r < 2; r++) {
#pragma unroll
                for (int j = 0; j < C::NC; j++) {
                    int z = sums[u].template get<128>(r, j);
                    if constexpr (B == 4) {
                        z += half_sum[j];
                    }
                    float &to = x[4 * half + u][r][j];
                    to = fmaf((float)z, r == 0 ? norm.x : norm.y, to);
                }
            }
        }
    }
}

/* Weights of a page times the norms of a segment, as right-hand factors; unit: what one is, relative to m. */
template <class C>
struct coded_weights {
    uint32_t high[8];
    uint32_t low[C::NC == 2 ? 8 : 1];
    int half_sum[C::NC]; /* of all tokens */

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
        const float top = __low2float(most);
        const float scale = __fdividef(65535.0f, fmaxf(top, 1e-7f));
        *unit_out = top * (1.0f / 65535.0f);
        float sum[C::NC] = {};
#pragma unroll
        for (int u = 0; u < 8; u++) {
            const float2 f = __half22float2(norm[u]);
            uint32_t z[2][C::NC];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const float k = (r == 0 ? f.x : f.y) * scale;
#pragma unroll
                for (int j = 0; j < C::NC; j++) {
                    z[r][j] = __float_as_uint(fmaf(p[u][r][j], k, 8388608.0f));
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
                half_sum[j] = __float2int_rn(0.5f * sum[j]);
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
                const int t = 4 * k + 2 * v;
                ptx_mma_s8u8(sums.high, a[2 * v][0], a[2 * v][1], a[2 * v + 1][0], a[2 * v + 1][1],
                             weights.high[t], weights.high[t + 1]);
                if constexpr (C::NC == 2) {
                    ptx_mma_s8u8(sums.low, a[2 * v][0], a[2 * v][1], a[2 * v + 1][0],
                                 a[2 * v + 1][1], weights.low[t], weights.low[t + 1]);
                }
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

template <class C>
static __device__ __forceinline__ void coded_page(const attn_shared<C> &shared,
                                                  attn_loader<C> &loader, attn_state<C> &state,
                                                  const bool (&sees)[C::NC])
{
    const int c = threadIdx.x % 4;
    const cuda_side &keys = shared.format.side[0];
    const cuda_side &values = shared.format.side[1];
    float x[8][2][C::NC] = {};
    float unit[C::NC];
    float factor[C::NC];
    {
        const uint8_t *k = loader.take();
        const int n_segments = C::KB != 0 ? 1 : keys.n_segments;
#pragma unroll 1
        for (int s = 0; s < n_segments; s++) {
            const cuda_segment &g = keys.segments[s];
            int half_sum[C::NC];
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                half_sum[j] = shared.query.half_sum[s][c * C::NC + j];
            }
            if constexpr (C::KB != 0) {
                coded_keys<C::KB, C>(k, g, C::D, shared.query.codes, half_sum, x);
            } else if (g.bits == 2) {
                coded_keys<2, C>(k, g, g.n_dims, shared.query.codes, half_sum, x);
            } else if (g.bits == 3) {
                coded_keys<3, C>(k, g, g.n_dims, shared.query.codes, half_sum, x);
            } else {
                coded_keys<4, C>(k, g, g.n_dims, shared.query.codes, half_sum, x);
            }
        }
        loader.give();
    }
#pragma unroll
    for (int j = 0; j < C::NC; j++) {
        unit[j] = shared.query.unit[c * C::NC + j];
    }
    state.template weigh<8>(x, unit, sees, factor);
    {
        const uint8_t *v = loader.take();
        const int n_segments = C::VB != 0 ? 1 : values.n_segments;
#pragma unroll 1
        for (int s = 0; s < n_segments; s++) {
            const cuda_segment &g = values.segments[s];
            coded_weights<C> weights;
            float weight_unit;
            float f[C::NC];
            weights.make(v + g.norms_at, x, C::VB != 0 ? C::VB == 4 : g.bits == 4, &weight_unit);
#pragma unroll
            for (int j = 0; j < C::NC; j++) {
                f[j] = sees[j] ? factor[j] * weight_unit * g.scale : 0.0f;
            }
            if constexpr (C::VB != 0) {
                coded_values<C::VB, true, C>(v, g, weights, f, state);
            } else if (g.bits == 2) {
                coded_values<2, false, C>(v, g, weights, f, state);
            } else if (g.bits == 3) {
                coded_values<3, false, C>(v, g, weights, f, state);
            } else {
                coded_values<4, false, C>(v, g, weights, f, state);
            }
        }
        loader.give();
    }
}

#endif /* KERNELS_CUDA_ATTN_CODED_CUH */
