/* Products of a code with a signed byte are summed in pairs and then in 16 bits, for as many steps as fit. */
#include "kernels/cpu/cpu_few_path.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define ISA    __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) ISA
/* 2 * 3 * 128 * 16 and 2 * 15 * 128 * 8 fit 16 bits. */
#define SUM_STEPS(bits) ((bits) == 2 ? 16 : 8)

INLINE __m256i first_products(__m256i codes, __m256i bytes)
{
    return _mm256_maddubs_epi16(codes, bytes);
}

/* Left alone, compilers add products to each other first, and then run out of registers. */
INLINE __m256i add_products(__m256i sum, __m256i codes, __m256i bytes)
{
    const __m256i products = _mm256_maddubs_epi16(codes, bytes);
    __asm__("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

/* 256 high + low; two lanes of 16 bits become one. */
INLINE __m256i whole_of(__m256i low, __m256i high)
{
    return _mm256_add_epi32(_mm256_madd_epi16(high, _mm256_set1_epi16(256)),
                            _mm256_madd_epi16(low, _mm256_set1_epi16(1)));
}

#include "kernels/cpu/cpu_few_fold.inc"

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
