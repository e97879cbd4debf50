/* kernels/cuda/attn_coded_pairs.cuh - codes of 1 to 4 bits as the int8 levels of a fragment.
 *
 * 2, 3 bits:  one byte permutation makes four codes their levels.
 * 4 bits:     one makes them magnitudes m, one spreads the signs, which stand where they are a selector's top bit, over
 *             bytes: m or ~m, a level less 1/2.  Or, in two parts that the product adds: the first permutation makes
 *             codes whose sign is clear m + 1, and of others the sign of a level, 0; the second, with the signs
 *             turned over, makes -1 or ~m.
 * 1 bit:      one mask.  A bit counts as much as it does in its byte; bit 7 is the sign. */
#ifndef KERNELS_CUDA_ATTN_CODED_PAIRS_CUH
#define KERNELS_CUDA_ATTN_CODED_PAIRS_CUH

#include "kernels/cuda/formats.h"
#include "kernels/cuda/fragment_order.h"
#include "kernels/cuda/ptx.cuh"

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

/* Parts of a width's levels, by the columns of a product (attn_shared.cuh): a second product costs less than what makes
 * 4 bits one, until it is two itself. */
template <int B, int NC>
constexpr int coded_parts = B == 4 && NC == 1 ? 2 : 1;

/* Of a segment (formats.h), by part. */
template <int B, int PARTS>
struct coded_levels {
    uint2 of[PARTS];

    __device__ explicit coded_levels(const cuda_segment &g)
    {
        of[0] = make_uint2(g.low, g.high);
        if constexpr (PARTS == 2) {
            of[1] = make_uint2(~g.low, ~g.high);
            of[0].x += 0x01010101u;
            of[0].y += 0x01010101u;
        }
    }
};

/* The two registers of a pair, row g and row g + 8, by part. */
template <int PARTS>
struct coded_pair {
    uint32_t word[PARTS][2];

    /* Of eight selectors, a nibble each. */
    __device__ __forceinline__ void look_up(int part, uint32_t n, uint2 levels)
    {
        word[part][0] = ptx_prmt(levels.x, levels.y, n);
        word[part][1] = ptx_prmt(levels.x, levels.y, n >> 16);
    }
    /* 1 bit: from where they lie to bit 1. */
    __device__ __forceinline__ void shift(int place)
    {
        word[0][0] = place == 0 ? word[0][0] << 1 : word[0][0] >> (place - 1);
        word[0][1] = word[0][1] >> (place + 3);
    }
};

/* N pairs of a lane's words of a tile. */
template <int B, int N, int PARTS>
static __device__ __forceinline__ void coded_pairs(const uint32_t (&w)[B * N / 4],
                                                   const coded_levels<B, PARTS> &levels,
                                                   coded_pair<PARTS> (&a)[N])
{
    if constexpr (B == 1) {
#pragma unroll
        for (int p = 0; p < N; p++) {
            const uint32_t bits = 0x01010101u << fragment_bit_of(N, p);
            a[p].word[0][0] = w[fragment_bit_word(N, p)] & bits;
            a[p].word[0][1] = w[fragment_bit_word(N, p)] & bits << 4;
        }
    } else if constexpr (B == 2) {
#pragma unroll
        for (int p = 0; p < N; p += 2) {
            a[p].look_up(0, w[p / 2] & 0x33333333u, levels.of[0]);
            a[p + 1].look_up(0, w[p / 2] >> 2 & 0x33333333u, levels.of[0]);
        }
    } else if constexpr (B == 3) {
#pragma unroll
        for (int p = 0; p < N; p += 4) {
            const uint32_t *of = w + p / 4 * 3;
#pragma unroll
            for (int k = 0; k < 3; k++) {
                a[p + k].look_up(0, of[k] & 0x77777777u, levels.of[0]);
            }
            uint32_t last = of[0] >> 1 & 0x44444444u;
            last |= of[1] >> 2 & 0x22222222u;
            last |= of[2] >> 3 & 0x11111111u;
            a[p + 3].look_up(0, last, levels.of[0]);
        }
    } else {
#pragma unroll
        for (int p = 0; p < N; p++) {
            if constexpr (PARTS == 2) {
                a[p].look_up(0, w[p], levels.of[0]);
                a[p].look_up(1, w[p] ^ 0x88888888u, levels.of[1]);
            } else {
                const uint32_t even = w[p] << 4;
                a[p].look_up(0, w[p] & 0x77777777u, levels.of[0]);
                a[p].word[0][0] ^= ptx_prmt(even, w[p], 0xd9c8);
                a[p].word[0][1] ^= ptx_prmt(even, w[p], 0xfbea);
            }
        }
    }
}

#endif /* KERNELS_CUDA_ATTN_CODED_PAIRS_CUH */
