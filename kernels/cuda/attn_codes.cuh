/* kernels/cuda/attn_codes.cuh - codes out of the words of a tile (fragment_order.h). */
#ifndef KERNELS_CUDA_ATTN_CODES_CUH
#define KERNELS_CUDA_ATTN_CODES_CUH

#include "kernels/cuda/fragment_order.h"

#include <stdint.h>

/* The codes of a pair, a byte each: x those of row g, y those of row g + 8. */
static __device__ __forceinline__ uint32_t codes_nibbles(uint32_t n)
{
    n = (n | n << 8) & 0x00ff00ffu;
    return (n | n << 4) & 0x0f0f0f0fu;
}

static __device__ __forceinline__ uint2 codes_spread(uint32_t nibbles)
{
    return make_uint2(codes_nibbles(nibbles & 0xffffu), codes_nibbles(nibbles >> 16));
}

/* Codes of 1 to 3 bits; word(w) is word w of the lane. */
template <typename F>
static __device__ __forceinline__ uint2 codes_few(int n_pairs, int bits, int pair, F word)
{
    if (bits == 1) {
        const uint32_t w = word(fragment_bit_word(n_pairs, pair)) >> fragment_bit_of(n_pairs, pair);
        return make_uint2(w & 0x01010101u, w >> 4 & 0x01010101u);
    }
    if (bits == 2) {
        return codes_spread(word(pair / 2) >> (pair % 2 * 2) & 0x33333333u);
    }
    const int w = pair / 4 * 3;
    if (pair % 4 < 3) {
        return codes_spread(word(w + pair % 4) & 0x77777777u);
    }
    return codes_spread((word(w) >> 1 & 0x44444444u) | (word(w + 1) >> 2 & 0x22222222u) |
                        (word(w + 2) >> 3 & 0x11111111u));
}

/* Of one of n_pairs pairs; word(w) is word w of the lane. */
template <typename F>
static __device__ __forceinline__ uint2 attn_codes_of(int n_pairs, int bits, int pair, F word)
{
    if (bits < 4) {
        return codes_few(n_pairs, bits, pair, word);
    }
    if (bits == 8) {
        return make_uint2(word(2 * pair), word(2 * pair + 1));
    }
    const uint32_t w = word(pair);
    if (bits == 4) {                                   /* sign and magnitude */
        const uint2 m = codes_spread(w ^ 0x88888888u); /* 8 is what codes above have */
        const uint32_t s0 = ~m.x >> 3 & 0x01010101u;
        const uint32_t s1 = ~m.y >> 3 & 0x01010101u;
        return make_uint2(m.x ^ ((s0 << 3) - s0), m.y ^ ((s1 << 3) - s1));
    }
    const uint2 low = codes_spread(w);
    const uint2 high = codes_few(n_pairs, bits - 4, pair, [&](int v) { return word(n_pairs + v); });
    return make_uint2(low.x | high.x << 4, low.y | high.y << 4);
}

#endif /* KERNELS_CUDA_ATTN_CODES_CUH */
