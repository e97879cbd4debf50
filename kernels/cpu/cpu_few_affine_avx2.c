/* Products of a code with a signed byte are summed in pairs and then in 16 bits, for as many steps as fit. */
#include "kernels/cpu/cpu_few_path.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define ISA    __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) ISA
/* 2 * 3 * 128 * 16 and 2 * 15 * 128 * 8 fit 16 bits. */
#define SUM_STEPS(bits) ((bits) == 2 ? 16 : 8)

#include "kernels/cpu/cpu_few_fold.inc"

typedef struct products { /* of n rows with the codes of four outputs */
    __m256i low[ROWS];
    __m256i high[ROWS];
} products;

/* Left alone, compilers add products to each other first, and then run out of registers. */
INLINE __m256i add_products(__m256i sum, __m256i codes, __m256i bytes)
{
    const __m256i more = _mm256_maddubs_epi16(codes, bytes);
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(more));
    return sum;
}

/* One step: the codes of four outputs, and the bytes of n rows. */
INLINE void add_step(products *p, __m256i codes, const int8_t *bytes, bool first, const int n)
{
    for (int r = 0; r < n; r++) {
        const __m256i low = load_i(bytes + 64 * r);
        const __m256i high = load_i(bytes + 64 * r + 32);
        p->low[r] = first ? _mm256_maddubs_epi16(codes, low) : add_products(p->low[r], codes, low);
        p->high[r] =
            first ? _mm256_maddubs_epi16(codes, high) : add_products(p->high[r], codes, high);
    }
}

/* 256 high + low; two lanes of 16 bits become one. */
INLINE void put_wholes(const products *p, __m256i *sums, bool add, const int n)
{
    for (int r = 0; r < n; r++) {
        const __m256i whole =
            _mm256_add_epi32(_mm256_madd_epi16(p->high[r], _mm256_set1_epi16(256)),
                             _mm256_madd_epi16(p->low[r], _mm256_set1_epi16(1)));
        sums[r] = add ? _mm256_add_epi32(sums[r], whole) : whole;
    }
}

/* Positions 0, 1, 4, 5 of those at codes. */
INLINE void dot_four(const uint8_t *codes, const int8_t *bytes, __m256i *sums, const int n,
                     const int bits, const int row_bytes)
{
    const int per_byte = 8 / bits;
    const int block = SUM_STEPS(bits) * bits < row_bytes ? SUM_STEPS(bits) * bits : row_bytes;
    const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
    LOAD_ANEW(bytes);
    for (int begin = 0; begin < row_bytes; begin += block) {
        products p;
#pragma GCC unroll 4
        for (int at = 0; at < block; at += 16, codes += 16) {
            const __m256i a = load_two(codes, codes + 4 * row_bytes);
            const __m256i b = load_two(codes + row_bytes, codes + 5 * row_bytes);
            const __m256i column[2] = {_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)};
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
#pragma GCC unroll 4
                for (int k = 0; k < per_byte; k++, bytes += 64 * n) {
                    const __m256i x = _mm256_srli_epi16(column[i], bits * k);
                    add_step(&p, _mm256_and_si256(x, mask), bytes, at + i + k == 0, n);
                }
            }
        }
        put_wholes(&p, sums, begin > 0, n);
    }
}

/* Positions 0, 1, 4, 5 and 2, 3, 6, 7. */
INLINE void dot_eight(const uint8_t *codes, const int8_t *bytes, __m256i *a, __m256i *b,
                      const int n, const int bits, const int row_bytes)
{
    dot_four(codes, bytes, a, n, bits, row_bytes);
    dot_four(codes + 2 * row_bytes, bytes, b, n, bits, row_bytes);
}

/* Code k of a byte, all positions: turned codes are eight vectors apart. */
INLINE void mix_four(const __m256i *turned, const int8_t *bytes, __m256i *sums, const int k,
                     const int n, const int bits)
{
    const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
    const int block = SUM_STEPS(bits);
    LOAD_ANEW(bytes);
    for (int begin = 0; begin < STEPS; begin += block) {
        products p;
#pragma GCC unroll 16
        for (int i = 0; i < block; i++, turned += 8, bytes += 64 * n) {
            const __m256i x = _mm256_srli_epi16(load_i(turned), bits * k);
            add_step(&p, _mm256_and_si256(x, mask), bytes, i == 0, n);
        }
        put_wholes(&p, sums, begin > 0, n);
    }
}

/* Codes k and k + 1. */
INLINE void mix_two(const __m256i *turned, const int8_t *bytes, __m256i *a, __m256i *b, const int k,
                    const int n, const int bits)
{
    mix_four(turned, bytes, a, k, n, bits);
    mix_four(turned, bytes, b, k + 1, n, bits);
}

#include "kernels/cpu/cpu_few_affine_k.inc"

#include "kernels/cpu/cpu_few_affine_v.inc"

static float top(const float *x, int32_t n)
{
    return cpu_few_avx2.top(x, n);
}

const cpu_few_path cpu_few_affine_k_avx2 = {top, dot, NULL};
const cpu_few_path cpu_few_affine_v_avx2 = {top, NULL, mix};

#else
typedef int cpu_few_affine_avx2_is_not_for_this_machine;
#endif
