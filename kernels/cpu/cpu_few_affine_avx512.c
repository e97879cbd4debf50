/* Products of four codes with signed bytes are summed in 32 bits (VNNI).  A register of 64 bytes holds what two of
 * cpu_few_affine_avx2.c do. */
#include "kernels/cpu/cpu_few_path.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define ISA    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) ISA

#include "kernels/cpu/cpu_few_fold.inc"

typedef struct products { /* of n rows with the codes of eight outputs */
    __m512i low[ROWS];
    __m512i high[ROWS];
} products;

INLINE __m512i load_twice(const void *p)
{
    return _mm512_broadcast_i64x4(load_i(p));
}

INLINE __m512i pair_of(__m256i a, __m256i b)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

INLINE products no_products(const int n)
{
    products p;
    for (int r = 0; r < n; r++) {
        p.low[r] = _mm512_setzero_si512();
        p.high[r] = _mm512_setzero_si512();
    }
    return p;
}

INLINE void add_step(products *p, __m512i codes, const int8_t *bytes, const int n)
{
    for (int r = 0; r < n; r++) {
        p->low[r] = _mm512_dpbusd_epi32(p->low[r], codes, load_twice(bytes + 64 * r));
        p->high[r] = _mm512_dpbusd_epi32(p->high[r], codes, load_twice(bytes + 64 * r + 32));
    }
}

/* 256 high + low. */
INLINE void put_wholes(const products *p, __m256i *a, __m256i *b, const int n)
{
    for (int r = 0; r < n; r++) {
        const __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(p->high[r], 8), p->low[r]);
        a[r] = _mm512_castsi512_si256(whole);
        b[r] = _mm512_extracti64x4_epi64(whole, 1);
    }
}

/* Positions 0, 1, 4, 5 and 2, 3, 6, 7. */
INLINE void dot_eight(const uint8_t *codes, const int8_t *bytes, __m256i *a, __m256i *b,
                      const int n, const int bits, const int row_bytes)
{
    const int per_byte = 8 / bits;
    const __m512i mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    products p = no_products(n);
    LOAD_ANEW(bytes);
#pragma GCC unroll 4
    for (int at = 0; at < row_bytes; at += 16, codes += 16) {
        const uint8_t *next = codes + row_bytes;
        const __m512i x = pair_of(load_two(codes, codes + 4 * row_bytes),
                                  load_two(codes + 2 * row_bytes, codes + 6 * row_bytes));
        const __m512i y = pair_of(load_two(next, next + 4 * row_bytes),
                                  load_two(next + 2 * row_bytes, next + 6 * row_bytes));
        const __m512i column[2] = {_mm512_unpacklo_epi64(x, y), _mm512_unpackhi_epi64(x, y)};
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
#pragma GCC unroll 4
            for (int k = 0; k < per_byte; k++, bytes += 64 * n) {
                const __m512i shifted = _mm512_srli_epi16(column[i], bits * k);
                add_step(&p, _mm512_and_si512(shifted, mask), bytes, n);
            }
        }
    }
    put_wholes(&p, a, b, n);
}

/* Codes k and k + 1 of a byte, all positions: turned codes are eight vectors apart. */
INLINE void mix_two(const __m256i *turned, const int8_t *bytes, __m256i *a, __m256i *b, const int k,
                    const int n, const int bits)
{
    const __m512i mask = _mm512_set1_epi8((char)((1 << bits) - 1));
    const __m512i shifts = pair_of(_mm256_set1_epi16((int16_t)(bits * k)),
                                   _mm256_set1_epi16((int16_t)(bits * (k + 1))));
    products p = no_products(n);
    LOAD_ANEW(bytes);
#pragma GCC unroll 16
    for (int i = 0; i < STEPS; i++, turned += 8, bytes += 64 * n) {
        const __m512i shifted = _mm512_srlv_epi16(load_twice(turned), shifts);
        add_step(&p, _mm512_and_si512(shifted, mask), bytes, n);
    }
    put_wholes(&p, a, b, n);
}

#include "kernels/cpu/cpu_few_affine_k.inc"

#include "kernels/cpu/cpu_few_affine_v.inc"

static float top(const float *x, int32_t n)
{
    return cpu_few_avx2.top(x, n);
}

const cpu_few_path cpu_few_affine_k_avx512 = {top, dot, NULL};
const cpu_few_path cpu_few_affine_v_avx512 = {top, NULL, mix};

#else
typedef int cpu_few_affine_avx512_is_not_for_this_machine;
#endif
