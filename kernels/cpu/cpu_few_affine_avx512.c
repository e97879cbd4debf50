/* Products of four codes with signed bytes are summed in 32 bits (VNNI), in registers of 32 bytes. */
#include "kernels/cpu/cpu_few_path.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define ISA             __attribute__((target("avx2,fma,f16c,avx512f,avx512vl,avx512vnni")))
#define INLINE          static inline __attribute__((always_inline)) ISA
#define SUM_STEPS(bits) 16

INLINE __m256i first_products(__m256i codes, __m256i bytes)
{
    return _mm256_dpbusd_epi32(_mm256_setzero_si256(), codes, bytes);
}

INLINE __m256i add_products(__m256i sum, __m256i codes, __m256i bytes)
{
    return _mm256_dpbusd_epi32(sum, codes, bytes);
}

INLINE __m256i whole_of(__m256i low, __m256i high)
{
    return _mm256_add_epi32(_mm256_slli_epi32(high, 8), low);
}

#include "kernels/cpu/cpu_few_fold.inc"

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
