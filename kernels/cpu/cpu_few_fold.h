/* kernels/cpu/cpu_few_fold.h - values folded with scales and rounded to two bytes: what cpu_few_affine_k.c and
 * cpu_few_affine_v.c multiply codes with.  Only they include this, on x86-64; their callers have checked the CPU.
 *
 * w = x * scale is rounded to step * (256 high + low), both bytes signed, with one step for all groups of a page.
 * Then sum of w * code = step / 2 * (2 S - (2^bits - 1) * sum) + bias, with S the same sum over the integers, sum
 * that of the rounded values, and bias what minima and the middle of the codes add.  So rounding is met by codes
 * counted from their middle. */
#ifndef KERNELS_CPU_CPU_FEW_FOLD_H
#define KERNELS_CPU_CPU_FEW_FOLD_H

#include "kernels/page.h"

#include <immintrin.h>
#include <stdint.h>

#define FOLD_KEYS   KERN_BLOCK_TOKENS
#define FOLD_DIMS   128
#define FOLD_GROUPS 4        /* at most: 128 / 32 */
#define FOLD_LANES  8        /* floats of a vector */
#define FOLD_BYTES  32       /* of a vector */
#define FOLD_TOP    32639.0f /* 256 * 127 + 127 */
/* Compilers like to add products to each other first, and then run out of registers. */
#define FOLD_KEEP_ORDER(sum) __asm__("" : "+x"(sum))
#define FOLD_AVX2            __attribute__((target("avx2,fma,f16c")))
#define FOLD_INLINE          static inline __attribute__((always_inline)) FOLD_AVX2

typedef struct cpu_fold { /* of one row of x and one group */
    int8_t high[FOLD_DIMS];
    int8_t low[FOLD_DIMS];
    float bias;
    int32_t sum;
} cpu_fold;

FOLD_INLINE __m256i fold_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

FOLD_INLINE void fold_store(void *p, __m256i v)
{
    _mm256_storeu_si256((__m256i *)p, v);
}

/* Up to 32 bytes of a row of codes; zeros behind a row of 16. */
FOLD_INLINE __m256i fold_codes(const uint8_t *p, const int row_bytes)
{
    return row_bytes < FOLD_BYTES
               ? _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p))
               : fold_load(p);
}

/* n fp16, a multiple of 8. */
FOLD_INLINE void fold_widen(const uint8_t *p, int32_t n, float *out)
{
    for (int32_t i = 0; i < n; i += FOLD_LANES) {
        const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(h));
    }
}

FOLD_INLINE float fold_sum(__m256 v)
{
    v = _mm256_add_ps(v, _mm256_permute2f128_ps(v, v, 1));
    v = _mm256_add_ps(v, _mm256_permute_ps(v, 0x4e));
    return _mm256_cvtss_f32(_mm256_add_ps(v, _mm256_permute_ps(v, 0xb1)));
}

FOLD_INLINE int32_t fold_sum_ints(__m256i v)
{
    const __m128i two = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i four = _mm_add_epi32(two, _mm_shuffle_epi32(two, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

/* The step for x [n] with scales of at most most [n]; scaled_out is x over it.  n is a multiple of 8. */
FOLD_INLINE float fold_step(const float *x, const float *most, int32_t n, float *scaled_out)
{
    const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 top = _mm256_set1_ps(1e-30f); /* of no weight, and its inverse does not overflow */
    for (int32_t i = 0; i < n; i += FOLD_LANES) {
        const __m256 w = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(most + i));
        top = _mm256_max_ps(top, _mm256_and_ps(w, no_sign));
    }
    top = _mm256_max_ps(top, _mm256_permute2f128_ps(top, top, 1));
    top = _mm256_max_ps(top, _mm256_permute_ps(top, 0x4e));
    top = _mm256_max_ps(top, _mm256_permute_ps(top, 0xb1));
    const __m256 factor = _mm256_div_ps(_mm256_set1_ps(FOLD_TOP), top);
    for (int32_t i = 0; i < n; i += FOLD_LANES) {
        _mm256_storeu_ps(scaled_out + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
    }
    return _mm256_cvtss_f32(top) / FOLD_TOP;
}

/* x and scaled [n] as fold_step has them, one group's scales and centres (min + scale * middle) [n]: sum and bias,
 * and the bytes in order [n / 32].  n is a multiple of 32. */
FOLD_INLINE void fold_round(const float *x, const float *scaled, const float *scales,
                            const float *centres, int32_t n, __m256i *high, __m256i *low,
                            cpu_fold *out)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the packs */
    const __m256i byte = _mm256_set1_epi16(0xff);
    const __m256i half = _mm256_set1_epi16(0x80); /* low is signed, so high rounds */
    __m256 bias[4];
    __m256i sum = _mm256_setzero_si256();

    for (int k = 0; k < 4; k++) {
        bias[k] = _mm256_setzero_ps();
    }
    for (int i = 0; i < n / FOLD_BYTES; i++) {
        __m256i w[4];
        for (int k = 0; k < 4; k++) {
            const int at = i * FOLD_BYTES + k * FOLD_LANES;
            const __m256 y = _mm256_loadu_ps(scaled + at);
            w[k] = _mm256_cvtps_epi32(_mm256_mul_ps(y, _mm256_loadu_ps(scales + at)));
            sum = _mm256_add_epi32(sum, w[k]);
            bias[k] =
                _mm256_fmadd_ps(_mm256_loadu_ps(x + at), _mm256_loadu_ps(centres + at), bias[k]);
        }
        const __m256i a = _mm256_packs_epi32(w[0], w[1]);
        const __m256i b = _mm256_packs_epi32(w[2], w[3]);
        const __m256i l = _mm256_packus_epi16(_mm256_and_si256(a, byte), _mm256_and_si256(b, byte));
        const __m256i h = _mm256_packs_epi16(_mm256_srai_epi16(_mm256_add_epi16(a, half), 8),
                                             _mm256_srai_epi16(_mm256_add_epi16(b, half), 8));
        low[i] = _mm256_permutevar8x32_epi32(l, order);
        high[i] = _mm256_permutevar8x32_epi32(h, order);
    }
    out->bias =
        fold_sum(_mm256_add_ps(_mm256_add_ps(bias[0], bias[1]), _mm256_add_ps(bias[2], bias[3])));
    out->sum = fold_sum_ints(sum);
}

/* centres [n]: minima on entry. */
FOLD_INLINE void fold_centre(const float *scales, int32_t n, float middle, float *centres)
{
    const __m256 m = _mm256_set1_ps(middle);
    for (int32_t i = 0; i < n; i += FOLD_LANES) {
        const __m256 min = _mm256_loadu_ps(centres + i);
        _mm256_storeu_ps(centres + i, _mm256_fmadd_ps(_mm256_loadu_ps(scales + i), m, min));
    }
}

/* most_out [n]: the largest of n_groups rows of scales [n]. */
FOLD_INLINE void fold_most(const float *scales, int32_t n_groups, int32_t n, float *most_out)
{
    for (int32_t i = 0; i < n; i += FOLD_LANES) {
        __m256 most = _mm256_loadu_ps(scales + i);
        for (int32_t k = 1; k < n_groups; k++) {
            most = _mm256_max_ps(most, _mm256_loadu_ps(scales + k * n + i));
        }
        _mm256_storeu_ps(most_out + i, most);
    }
}

#endif /* KERNELS_CPU_CPU_FEW_FOLD_H */
