/* kernels/cpu/cpu_few_ops_avx2.h - the instructions of AVX2 that the loops of decode attention share, under the names
 * that cpu_few_keys.inc knows.  Only cpu_few_avx2.c includes this, on x86-64; its callers have checked the CPU. */
#ifndef KERNELS_CPU_CPU_FEW_OPS_AVX2_H
#define KERNELS_CPU_CPU_FEW_OPS_AVX2_H

#include "kernels/cpu/cpu_few_path.h"

#include <immintrin.h>

#define LANES  8
#define CHAINS 1 /* an addition of integers takes one cycle */
#define ISA    __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) ISA

typedef __m256i ints;
typedef __m256 reals;

INLINE __m256i load_i(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE __m256i twice_128(const void *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}

INLINE ints all_of(int32_t x)
{
    return _mm256_set1_epi32(x);
}

INLINE ints pairs_of(int low, int high)
{
    return _mm256_set1_epi32((int32_t)((uint32_t)high << 16 | (uint32_t)low));
}

INLINE ints quarters_of(const void *bytes)
{
    return twice_128(bytes);
}

INLINE ints shuffle(ints table, ints at)
{
    return _mm256_shuffle_epi8(table, at);
}

INLINE ints low_products(ints a, ints b)
{
    return _mm256_mullo_epi16(a, b);
}

INLINE ints shift_right(ints a, int n)
{
    return _mm256_srli_epi16(a, n);
}

INLINE ints both_of(ints a, ints b)
{
    return _mm256_and_si256(a, b);
}

INLINE ints sum_of(ints a, ints b)
{
    return _mm256_add_epi32(a, b);
}

INLINE ints low_halves(ints a, ints b)
{
    return _mm256_unpacklo_epi64(a, b);
}

INLINE ints high_halves(ints a, ints b)
{
    return _mm256_unpackhi_epi64(a, b);
}

/* Compilers like to add products to each other first, and then run out of registers. */
INLINE ints add_products(ints sum, ints a, ints b)
{
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    __asm__("" : "+x"(sum));
    return sum;
}

INLINE reals reals_of(ints a)
{
    return _mm256_cvtepi32_ps(a);
}

INLINE ints low_quarters(ints a, ints b)
{
    return _mm256_unpacklo_epi32(a, b);
}

INLINE ints high_quarters(ints a, ints b)
{
    return _mm256_unpackhi_epi32(a, b);
}

INLINE reals zeros(void)
{
    return _mm256_setzero_ps();
}

INLINE reals real_to_all(float x)
{
    return _mm256_set1_ps(x);
}

INLINE reals fma_of(reals a, reals b, reals c)
{
    return _mm256_fmadd_ps(a, b, c);
}

INLINE reals load_halves(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE reals times(reals a, float x)
{
    return _mm256_mul_ps(a, _mm256_set1_ps(x));
}

/* at [LANES] = a * b, or that more. */
INLINE void put(float *at, reals a, reals b, bool add)
{
    _mm256_storeu_ps(at, add ? _mm256_fmadd_ps(a, b, _mm256_loadu_ps(at)) : _mm256_mul_ps(a, b));
}

/* Bytes of the next key follow at byte 8, or at byte row_bytes if packed. */
INLINE __m128i load_two(const uint8_t *p, int32_t row_bytes, const bool packed)
{
    if (packed) {
        return _mm_loadu_si128((const __m128i *)(const void *)p);
    }
    const __m128i key = _mm_loadl_epi64((const __m128i *)(const void *)p);
    return _mm_castps_si128(
        _mm_loadh_pi(_mm_castsi128_ps(key), (const __m64 *)(const void *)(p + row_bytes)));
}

/* Keys 0 and 1, 4 and 5. */
INLINE ints load_keys(const uint8_t *p, int32_t row_bytes, const bool packed)
{
    return _mm256_set_m128i(load_two(p + 4 * row_bytes, row_bytes, packed),
                            load_two(p, row_bytes, packed));
}

/* Keys 0 and 4. */
INLINE ints load_every_fourth(const uint8_t *p, int32_t row_bytes)
{
    return _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(const void *)(p + 4 * row_bytes)),
                            _mm_loadu_si128((const __m128i *)(const void *)p));
}

/* How 16 codes of 5..8 bits become centroids. */
typedef struct book {
    __m256i bytes; /* to four lanes of four codes; of 5 and 6 bits to two in each half of a lane */
    /* 7 and 8 bits */
    const float *centroids;
    /* 5 and 6 bits */
    __m256i align[2];     /* of even and odd lanes: a half's codes to its top */
    __m256i transpose;    /* bytes of four codes of four keys to those of four keys by code */
    __m256i planes[4][2]; /* bytes of centroids that are not negative; the others mirror them */
} book;

INLINE book book_of(const kern_segment *g, const cpu_few_segment *plan, const int bits)
{
    book b = {.centroids = g->centroids};
    uint8_t bytes[16];
    uint8_t transpose[16];
    for (int i = 0; i < 16; i++) {
        bytes[i] = (uint8_t)(i / 4 * bits / 2 + (bits <= 6 ? (i % 4 + 1) / 2 : i % 4));
        transpose[i] = (uint8_t)(i % 4 * 4 + i / 4);
    }
    b.bytes = twice_128(bytes);
    if (bits <= 6) {
        for (int odd = 0; odd < 2; odd++) {
            const int at = odd * 4 * bits % 8; /* the first code of a lane */
            b.align[odd] = pairs_of(1 << (16 - 2 * bits - at), 1 << (24 - 4 * bits - at));
        }
        b.transpose = twice_128(transpose);
        for (int k = 0; k < 4; k++) {
            b.planes[k][0] = twice_128(plan->planes[k]);
            b.planes[k][1] =
                _mm256_xor_si256(b.planes[k][0], twice_128(plan->planes[k] + 16)); /* as steps */
        }
    }
    return b;
}

/* Centroids of the codes of part i: out[k] those of code k of each lane.  5 and 6 bits: a byte shuffle looks up one of the
 * four bytes of 32 centroids; an index that is negative looks up 0, so the second table only counts above 16. */
INLINE void centroids_of(const book *b, ints codes, const int i, const int bits, reals *out)
{
    if (bits > 6) {
        for (int k = 0; k < 4; k++) {
            const ints low = _mm256_srli_epi32(codes, i * 4 * bits % 8 + k * bits);
            out[k] = _mm256_i32gather_ps(b->centroids, both_of(low, all_of((1 << bits) - 1)), 4);
        }
        return;
    }
    const int mask = (1 << bits) - 1;
    const ints top = low_products(codes, b->align[i % 2]);
    const ints even = both_of(shift_right(top, 16 - 2 * bits), _mm256_set1_epi16((int16_t)mask));
    const ints odd = both_of(shift_right(top, 8 - bits), _mm256_set1_epi16((int16_t)(mask << 8)));
    const ints code = shuffle(_mm256_or_si256(even, odd), b->transpose);
    const ints minus = _mm256_cmpgt_epi8(_mm256_set1_epi8((char)(1 << (bits - 1))), code);
    const ints entry = both_of(_mm256_xor_si256(code, minus), _mm256_set1_epi8((char)(mask >> 1)));
    ints plane[4];
    for (int k = 0; k < 4; k++) {
        plane[k] = shuffle(b->planes[k][0], entry);
        if (bits == 6) {
            const ints above = _mm256_sub_epi8(entry, _mm256_set1_epi8(16));
            plane[k] = _mm256_xor_si256(plane[k], shuffle(b->planes[k][1], above));
        }
    }
    plane[3] = _mm256_xor_si256(plane[3], both_of(minus, _mm256_set1_epi8((char)0x80)));
    const ints low[2] = {_mm256_unpacklo_epi8(plane[0], plane[1]),
                         _mm256_unpackhi_epi8(plane[0], plane[1])};
    const ints high[2] = {_mm256_unpacklo_epi8(plane[2], plane[3]),
                          _mm256_unpackhi_epi8(plane[2], plane[3])};
    for (int k = 0; k < 2; k++) {
        out[2 * k] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low[k], high[k]));
        out[2 * k + 1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low[k], high[k]));
    }
}

#endif /* KERNELS_CPU_CPU_FEW_OPS_AVX2_H */
