/* kernels/cuda/pack_words.cuh - the words of a lane of a tile (fragment_order.h), made of its codes.
 *
 * A row holds a code in the low byte of its half, `pack_step` times as large.  Of 4 bits, as pages have it: the
 * magnitude, and 8 for codes below 8; of others, the code with its top bit turned over.  Either way a magnitude and
 * a sign make it at once. */
#ifndef KERNELS_CUDA_PACK_WORDS_CUH
#define KERNELS_CUDA_PACK_WORDS_CUH

#include "kernels/cuda/pack_rows.cuh"

/* Up to 5 bits, magnitudes are offsets of floats while codes are made. */
template <int B>
constexpr uint32_t pack_step = B <= 5 ? 4 : 1;

/* In both halves: magnitude, times pack_step; below: all ones where the code is in the lower half of the book. */
template <int B>
__device__ __forceinline__ uint32_t pack_signed(uint32_t magnitude, uint32_t below)
{
    constexpr uint32_t kTurned = (B == 4 ? 8u : (1u << B) - 1) * pack_step<B> * 0x10001u;
    return magnitude ^ (below & kTurned);
}

/* How a row holds a code. */
template <int B>
__device__ __forceinline__ uint32_t pack_held(uint32_t code)
{
    constexpr uint32_t kTop = 1u << (B - 1);
    const uint32_t turned = code ^ kTop;
    return (B == 4 && code < kTop ? turned ^ 7u : turned) * pack_step<B>;
}

/* Nibble n is code n, below 16, of the step kStep.  One product moves neighbours together, into bytes 1 and 3. */
template <uint32_t kStep>
__device__ __forceinline__ uint32_t pack_nibbles(pack_pair p)
{
    constexpr uint32_t kTogether = ((1u << 8) + (1u << 4)) / kStep;
    return ptx_prmt(p.low * kTogether, p.high * kTogether, 0x7531);
}

/* pairs as rows hold them, of the step kStep; word[kPairs * B / 4]. */
template <int B, uint32_t kStep, int kPairs>
__device__ __forceinline__ void pack_words(const pack_pair *pairs, uint32_t *word)
{
    constexpr uint32_t kTops = (1u << (B - 1)) % 16 * 0x11111111u;
    if constexpr (B == 8) {
#pragma unroll
        for (int p = 0; p < kPairs; p++) {
            word[2 * p] = pairs[p].low ^ 0x80808080u;
            word[2 * p + 1] = pairs[p].high ^ 0x80808080u;
        }
    } else if constexpr (B > 4) {
        constexpr uint32_t kLow = 15 * kStep * 0x01010101u;
        pack_pair rest[kPairs];
#pragma unroll
        for (int p = 0; p < kPairs; p++) {
            word[p] = pack_nibbles<kStep>({pairs[p].low & kLow, pairs[p].high & kLow});
            rest[p] = {(pairs[p].low & ~kLow) >> 4, (pairs[p].high & ~kLow) >> 4};
        }
        pack_words<B - 4, kStep, kPairs>(rest, word + kPairs);
    } else if constexpr (B == 4) {
#pragma unroll
        for (int p = 0; p < kPairs; p++) {
            word[p] = pack_nibbles<kStep>(pairs[p]);
        }
    } else if constexpr (B == 3) {
#pragma unroll
        for (int p = 0; p < kPairs; p += 4) {
            const uint32_t fourth = pack_nibbles<kStep>(pairs[p + 3]) ^ kTops;
#pragma unroll
            for (int m = 0; m < 3; m++) {
                word[p / 4 * 3 + m] =
                    (pack_nibbles<kStep>(pairs[p + m]) ^ kTops) | (fourth << (m + 1) & 0x88888888u);
            }
        }
    } else if constexpr (B == 2) {
#pragma unroll
        for (int w = 0; w < kPairs / 2; w++) {
            word[w] = (pack_nibbles<kStep>(pairs[2 * w]) ^ kTops) |
                      (pack_nibbles<kStep>(pairs[2 * w + 1]) ^ kTops) << 2;
        }
    } else {
#pragma unroll
        for (int w = 0; w < kPairs / 4; w++) {
            word[w] = ~0u; /* a code has its bit turned over */
        }
#pragma unroll
        for (int p = 0; p < kPairs; p++) {
            word[fragment_bit_word(kPairs, p)] ^=
                (pairs[p].low / kStep | pairs[p].high * (16 / kStep)) << fragment_bit_of(kPairs, p);
        }
    }
}

/* A tile of kWords words a lane. */
template <int kWords>
__device__ __forceinline__ void pack_words_store(const uint32_t *word, uint8_t *tile)
{
    const int lane = threadIdx.x % 32;
    constexpr int kWhole = kWords / 4 * 4;
#pragma unroll
    for (int w = 0; w < kWhole; w += 4) {
        *(uint4 *)(tile + fragment_word_at(kWords, w, lane)) =
            make_uint4(word[w], word[w + 1], word[w + 2], word[w + 3]);
    }
    if constexpr (kWords % 4 >= 2) {
        *(uint2 *)(tile + fragment_word_at(kWords, kWhole, lane)) =
            make_uint2(word[kWhole], word[kWhole + 1]);
    }
    if constexpr (kWords % 2 == 1) {
        *(uint32_t *)(tile + fragment_word_at(kWords, kWords - 1, lane)) = word[kWords - 1];
    }
}

#endif /* KERNELS_CUDA_PACK_WORDS_CUH */
