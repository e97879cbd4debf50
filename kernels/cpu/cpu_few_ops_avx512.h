/* kernels/cpu/cpu_few_ops_avx512.h - the instructions of AVX-512 that the loops of decode attention share, under the names
 * that cpu_few_keys.inc knows.  Only cpu_few_avx512.c includes this, on x86-64; its callers have checked the CPU. */
#ifndef KERNELS_CPU_CPU_FEW_OPS_AVX512_H
#define KERNELS_CPU_CPU_FEW_OPS_AVX512_H

#include "kernels/cpu/cpu_few_path.h"

#include <immintrin.h>

#define LANES  16
#define CHAINS 2 /* an instruction that multiplies and adds takes four or five cycles */
#define ISA         \
    __attribute__(( \
        target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) ISA

typedef __m512i ints;
typedef __m512 reals;

INLINE ints all_of(int32_t x)
{
    return _mm512_set1_epi32(x);
}

INLINE ints pairs_of(int low, int high)
{
    return _mm512_set1_epi32((int32_t)((uint32_t)high << 16 | (uint32_t)low));
}

INLINE ints quarters_of(const void *bytes)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)bytes));
}

INLINE ints shuffle(ints table, ints at)
{
    return _mm512_shuffle_epi8(table, at);
}

INLINE ints low_products(ints a, ints b)
{
    return _mm512_mullo_epi16(a, b);
}

INLINE ints shift_right(ints a, int n)
{
    return _mm512_srli_epi16(a, (uint8_t)n); /* int or unsigned, compilers differ */
}

INLINE ints both_of(ints a, ints b)
{
    return _mm512_and_si512(a, b);
}

INLINE ints sum_of(ints a, ints b)
{
    return _mm512_add_epi32(a, b);
}

INLINE ints low_halves(ints a, ints b)
{
    return _mm512_unpacklo_epi64(a, b);
}

INLINE ints high_halves(ints a, ints b)
{
    return _mm512_unpackhi_epi64(a, b);
}

INLINE ints add_products(ints sum, ints a, ints b)
{
    return _mm512_dpwssd_epi32(sum, a, b);
}

INLINE reals reals_of(ints a)
{
    return _mm512_cvtepi32_ps(a);
}

INLINE ints low_quarters(ints a, ints b)
{
    return _mm512_unpacklo_epi32(a, b);
}

INLINE ints high_quarters(ints a, ints b)
{
    return _mm512_unpackhi_epi32(a, b);
}

INLINE reals zeros(void)
{
    return _mm512_setzero_ps();
}

INLINE reals real_to_all(float x)
{
    return _mm512_set1_ps(x);
}

INLINE reals fma_of(reals a, reals b, reals c)
{
    return _mm512_fmadd_ps(a, b, c);
}

INLINE reals load_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

INLINE reals times(reals a, float x)
{
    return _mm512_mul_ps(a, _mm512_set1_ps(x));
}

/* at [LANES] = a * b, or that more. */
INLINE void put(float *at, reals a, reals b, bool add)
{
    _mm512_storeu_ps(at, add ? _mm512_fmadd_ps(a, b, _mm512_loadu_ps(at)) : _mm512_mul_ps(a, b));
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

/* Keys 0 and 1, 4 and 5, 8 and 9, 12 and 13. */
INLINE ints load_keys(const uint8_t *p, int32_t row_bytes, const bool packed)
{
    const __m256i low = _mm256_set_m128i(load_two(p + 4 * row_bytes, row_bytes, packed),
                                         load_two(p, row_bytes, packed));
    const __m256i high = _mm256_set_m128i(load_two(p + 12 * row_bytes, row_bytes, packed),
                                          load_two(p + 8 * row_bytes, row_bytes, packed));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

INLINE __m128i load_key(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* Keys 0, 4, 8 and 12. */
INLINE ints load_every_fourth(const uint8_t *p, int32_t row_bytes)
{
    const __m256i low = _mm256_set_m128i(load_key(p + 4 * row_bytes), load_key(p));
    const __m256i high =
        _mm256_set_m128i(load_key(p + 12 * row_bytes), load_key(p + 8 * row_bytes));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* How 16 codes of 5..8 bits become centroids. */
typedef struct book {
    ints bytes; /* to four lanes of four codes */
    const float *centroids;
    __m512 quarters[4]; /* up to 6 bits: all centroids */
} book;

INLINE book book_of(const kern_segment *g, const cpu_few_segment *plan, const int bits)
{
    book b = {.centroids = g->centroids};
    uint8_t bytes[16];
    (void)plan;
    for (int i = 0; i < 16; i++) {
        bytes[i] = (uint8_t)(i / 4 * bits / 2 + i % 4);
    }
    b.bytes = quarters_of(bytes);
    for (int i = 0; bits <= 6 && i < 1 << (bits - 4); i++) {
        b.quarters[i] = _mm512_loadu_ps(g->centroids + i * LANES);
    }
    return b;
}

/* Centroids of the codes of part i: out[k] those of code k of each lane. */
INLINE void centroids_of(const book *b, ints codes, const int i, const int bits, reals *out)
{
    for (int k = 0; k < 4; k++) {
        const ints code = _mm512_srli_epi32(codes, (unsigned)(i * 4 * bits % 8 + k * bits));
        if (bits > 6) {
            out[k] = _mm512_i32gather_ps(both_of(code, all_of((1 << bits) - 1)), b->centroids, 4);
            continue;
        }
        out[k] = _mm512_permutex2var_ps(b->quarters[0], code, b->quarters[1]);
        if (bits == 6) {
            const __m512 w = _mm512_permutex2var_ps(b->quarters[2], code, b->quarters[3]);
            out[k] = _mm512_mask_blend_ps(_mm512_test_epi32_mask(code, all_of(32)), out[k], w);
        }
    }
}

#endif /* KERNELS_CPU_CPU_FEW_OPS_AVX512_H */
