#include "kernels/cpu/cpu_few_avx2.h"

#if defined(__x86_64__)

#include "kernels/page.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define KEYS   KERN_BLOCK_TOKENS
#define LANES  8
#define SUMS   8 /* in flight: rows times keys of a dot product */
#define AVX2   __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) AVX2

AVX2 float cpu_few_top(const float *x, int32_t n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256(); /* magnitudes sort like integers, NaN above infinity */
    uint32_t lanes[LANES];
    uint32_t most = 0;
    for (int32_t i = 0; i < n; i += LANES) {
        const __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + i));
        top = _mm256_max_epu32(top, _mm256_and_si256(bits, magnitude));
    }
    memcpy(lanes, &top, sizeof lanes);
    for (int i = 0; i < LANES; i++) {
        most = lanes[i] > most ? lanes[i] : most;
    }
    float value = INFINITY;
    if (most < 0x7f800000u) {
        memcpy(&value, &most, sizeof value);
    }
    return value;
}

INLINE int32_t sum_of(__m256i v)
{
    int32_t lanes[LANES];
    int32_t sum = 0;
    memcpy(lanes, &v, sizeof lanes);
    for (int i = 0; i < LANES; i++) {
        sum += lanes[i];
    }
    return sum;
}

AVX2 int32_t cpu_few_round(const float *x, int32_t n, float factor, int16_t *out)
{
    const __m256 f = _mm256_set1_ps(factor);
    __m256i sum = _mm256_setzero_si256();
    for (int32_t i = 0; i < n; i += 2 * LANES) {
        const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), f));
        const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + LANES), f));
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(out + i), packed);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(packed, _mm256_set1_epi16(1)));
    }
    return sum_of(sum);
}

AVX2 void cpu_few_norms(const uint8_t *f16, float *norms_out)
{
    for (int32_t j = 0; j < KEYS; j += LANES) {
        const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(f16 + 2 * j));
        _mm256_storeu_ps(norms_out + j, _mm256_cvtph_ps(h));
    }
}

/* How 16 codes of b bits, 2 b bytes, become 16 levels in 16-bit lanes. */
typedef struct unpacker {
    __m256i bytes; /* the two bytes that hold code i */
    __m256i shift; /* times a power of two: the code's top bit becomes the lane's */
    __m256i levels;
    __m256i zero_high; /* index of the lane's high byte: a shuffle turns it into 0 */
} unpacker;

INLINE unpacker unpacker_of(const cpu_few_job *job, int bits)
{
    uint8_t bytes[32];
    uint16_t shift[16];
    unpacker u;
    for (int i = 0; i < 16; i++) {
        bytes[2 * i] = (uint8_t)(bits * i / 8);
        bytes[2 * i + 1] = (uint8_t)(bits * i / 8 + 1);
        shift[i] = (uint16_t)(1u << (16 - bits - bits * i % 8));
    }
    memcpy(&u.bytes, bytes, sizeof bytes);
    memcpy(&u.shift, shift, sizeof shift);
    u.levels =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)job->levels));
    u.zero_high = _mm256_set1_epi16((int16_t)0x8000);
    return u;
}

INLINE __m256i unpack(const unpacker *u, const uint8_t *p, int bits)
{
    int64_t word;
    memcpy(&word, p, sizeof word);
    const __m256i pairs = _mm256_shuffle_epi8(_mm256_set1_epi64x(word), u->bytes);
    const __m256i codes = _mm256_srli_epi16(_mm256_mullo_epi16(pairs, u->shift), 16 - bits);
    return _mm256_shuffle_epi8(u->levels, _mm256_or_si256(codes, u->zero_high));
}

/* Sums of the lanes of eight vectors. */
INLINE __m256i sums_of_8(const __m256i *a)
{
    const __m256i x =
        _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]), _mm256_hadd_epi32(a[2], a[3]));
    const __m256i y =
        _mm256_hadd_epi32(_mm256_hadd_epi32(a[4], a[5]), _mm256_hadd_epi32(a[6], a[7]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(x, y, 0x20),
                            _mm256_permute2x128_si256(x, y, 0x31));
}

INLINE __m256 sums_of_8f(const __m256 *a)
{
    const __m256 x = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
    const __m256 y = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
}

/* Eight results [key][row] from key j on to the rows of s. */
INLINE void put(const cpu_few_job *job, __m256 x, float *s, int32_t j, const int n)
{
    float lanes[SUMS];
    _mm256_storeu_ps(lanes, x);
    for (int i = 0; i < SUMS; i++) {
        float *at = s + i % n * KEYS + j + i / n;
        *at = job->add ? *at + lanes[i] : lanes[i];
    }
}

/* rows times keys is 8. */
INLINE void dot_codes(const cpu_few_job *job, const int16_t *q16, const float *scale,
                      const int32_t *sum, float *s, const int n, const int bits)
{
    const int keys = SUMS / n;
    const int32_t row_bytes = job->n_dims / 8 * bits;
    const unpacker u = unpacker_of(job, bits);
    int32_t offsets[SUMS];
    int32_t key_of[SUMS];
    float scales[SUMS];
    for (int i = 0; i < SUMS; i++) {
        offsets[i] = sum[i % n];
        scales[i] = scale[i % n];
        key_of[i] = i / n;
    }

    for (int32_t j = 0; j < KEYS; j += keys) {
        const uint8_t *p = job->codes + (int64_t)j * row_bytes;
        __m256i acc[SUMS];
        for (int i = 0; i < SUMS; i++) {
            acc[i] = _mm256_setzero_si256();
        }
        for (int32_t d = 0; d < job->n_dims; d += 16, p += 2 * bits) {
            for (int k = 0; k < keys; k++) {
                const __m256i x = unpack(&u, p + k * row_bytes, bits);
                for (int r = 0; r < n; r++) {
                    const __m256i y = _mm256_loadu_si256(
                        (const __m256i *)(const void *)(q16 + r * job->n_dims + d));
                    acc[k * n + r] = _mm256_add_epi32(acc[k * n + r], _mm256_madd_epi16(x, y));
                }
            }
        }
        const __m256i twice = _mm256_slli_epi32(sums_of_8(acc), 1);
        const __m256i off = _mm256_loadu_si256((const __m256i *)(const void *)offsets);
        const __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)key_of);
        const __m256 norms = _mm256_permutevar8x32_ps(_mm256_loadu_ps(job->norms + j), at);
        const __m256 x = _mm256_cvtepi32_ps(_mm256_sub_epi32(twice, off));
        put(job, _mm256_mul_ps(_mm256_mul_ps(x, _mm256_loadu_ps(scales)), norms), s, j, n);
    }
}

/* 16 dims at a time, two keys at a time: 32-bit lanes hold one dim of both. */
INLINE void mix_codes(const cpu_few_job *job, const int16_t *p16, const float *scale,
                      const int32_t *sum, float *o, int32_t o_stride, const int n, const int bits)
{
    const int32_t row_bytes = job->n_dims / 8 * bits;
    const unpacker u = unpacker_of(job, bits);

    for (int32_t d = 0; d < job->n_dims; d += 16) {
        const uint8_t *p = job->codes + d / 8 * bits;
        __m256i low[4];
        __m256i high[4];
        for (int r = 0; r < n; r++) {
            low[r] = _mm256_setzero_si256();
            high[r] = _mm256_setzero_si256();
        }
        for (int32_t j = 0; j < KEYS; j += 2, p += 2 * row_bytes) {
            const __m256i x = unpack(&u, p, bits);
            const __m256i y = unpack(&u, p + row_bytes, bits);
            const __m256i xy_low = _mm256_unpacklo_epi16(x, y);
            const __m256i xy_high = _mm256_unpackhi_epi16(x, y);
            for (int r = 0; r < n; r++) {
                int32_t pair;
                memcpy(&pair, p16 + r * KEYS + j, sizeof pair);
                const __m256i w = _mm256_set1_epi32(pair);
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(xy_low, w));
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(xy_high, w));
            }
        }
        for (int r = 0; r < n; r++) { /* the unpacks left dims 0..3, 8..11 low, 4..7, 12..15 high */
            float *at = o + (int64_t)r * o_stride + d;
            const __m256i off = _mm256_set1_epi32(sum[r]);
            const __m256 f = _mm256_set1_ps(scale[r]);
            const __m256i a = _mm256_permute2x128_si256(low[r], high[r], 0x20);
            const __m256i b = _mm256_permute2x128_si256(low[r], high[r], 0x31);
            const __m256 va = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_slli_epi32(a, 1), off));
            const __m256 vb = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_slli_epi32(b, 1), off));
            _mm256_storeu_ps(at, _mm256_fmadd_ps(va, f, _mm256_loadu_ps(at)));
            _mm256_storeu_ps(at + LANES, _mm256_fmadd_ps(vb, f, _mm256_loadu_ps(at + LANES)));
        }
    }
}

INLINE __m256 widen(const uint8_t *p)
{
    const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE void dot_bf16(const cpu_few_job *job, const float *q, int32_t q_stride, float *s,
                     const int n)
{
    const int keys = SUMS / n;
    const int32_t row_bytes = 2 * job->n_dims;

    for (int32_t j = 0; j < KEYS; j += keys) {
        const uint8_t *p = job->codes + (int64_t)j * row_bytes;
        __m256 acc[SUMS];
        for (int i = 0; i < SUMS; i++) {
            acc[i] = _mm256_setzero_ps();
        }
        for (int32_t d = 0; d < job->n_dims; d += LANES) {
            for (int k = 0; k < keys; k++) {
                const __m256 x = widen(p + k * row_bytes + 2 * d);
                for (int r = 0; r < n; r++) {
                    const __m256 y = _mm256_loadu_ps(q + (int64_t)r * q_stride + d);
                    acc[k * n + r] = _mm256_fmadd_ps(x, y, acc[k * n + r]);
                }
            }
        }
        put(job, sums_of_8f(acc), s, j, n);
    }
}

INLINE void mix_bf16(const cpu_few_job *job, const float *p, float *o, int32_t o_stride,
                     const int n)
{
    for (int32_t d = 0; d < job->n_dims; d += 2 * LANES) {
        const uint8_t *v = job->codes + 2 * d;
        __m256 low[4];
        __m256 high[4];
        for (int r = 0; r < n; r++) {
            low[r] = _mm256_loadu_ps(o + (int64_t)r * o_stride + d);
            high[r] = _mm256_loadu_ps(o + (int64_t)r * o_stride + d + LANES);
        }
        for (int32_t j = 0; j < KEYS; j++, v += 2 * job->n_dims) {
            const __m256 x = widen(v);
            const __m256 y = widen(v + 2 * LANES);
            for (int r = 0; r < n; r++) {
                const __m256 w = _mm256_set1_ps(p[r * KEYS + j]);
                low[r] = _mm256_fmadd_ps(w, x, low[r]);
                high[r] = _mm256_fmadd_ps(w, y, high[r]);
            }
        }
        for (int r = 0; r < n; r++) {
            _mm256_storeu_ps(o + (int64_t)r * o_stride + d, low[r]);
            _mm256_storeu_ps(o + (int64_t)r * o_stride + d + LANES, high[r]);
        }
    }
}

/* call(n, bits) with both as constants. */
#define BY_BITS(call, n)        \
    switch (job->bits) {        \
    case 1: call(n, 1); break;  \
    case 2: call(n, 2); break;  \
    case 3: call(n, 3); break;  \
    default: call(n, 4); break; \
    }

AVX2 void cpu_few_dot_codes(const cpu_few_job *job, const int16_t *q16, const float *scale,
                            const int32_t *sum, float *s, int32_t n)
{
#define CALL(rows, bits) dot_codes(job, q16, scale, sum, s, rows, bits)
    if (n == 4) {
        BY_BITS(CALL, 4)
    } else if (n == 2) {
        BY_BITS(CALL, 2)
    } else {
        BY_BITS(CALL, 1)
    }
#undef CALL
}

AVX2 void cpu_few_mix_codes(const cpu_few_job *job, const int16_t *p16, const float *scale,
                            const int32_t *sum, float *o, int32_t o_stride, int32_t n)
{
#define CALL(rows, bits) mix_codes(job, p16, scale, sum, o, o_stride, rows, bits)
    if (n == 4) {
        BY_BITS(CALL, 4)
    } else if (n == 2) {
        BY_BITS(CALL, 2)
    } else {
        BY_BITS(CALL, 1)
    }
#undef CALL
}

AVX2 void cpu_few_dot_bf16(const cpu_few_job *job, const float *q, int32_t q_stride, float *s,
                           int32_t n)
{
    switch (n) {
    case 4: dot_bf16(job, q, q_stride, s, 4); break;
    case 2: dot_bf16(job, q, q_stride, s, 2); break;
    default: dot_bf16(job, q, q_stride, s, 1); break;
    }
}

AVX2 void cpu_few_mix_bf16(const cpu_few_job *job, const float *p, float *o, int32_t o_stride,
                           int32_t n)
{
    switch (n) {
    case 4: mix_bf16(job, p, o, o_stride, 4); break;
    case 2: mix_bf16(job, p, o, o_stride, 2); break;
    default: mix_bf16(job, p, o, o_stride, 1); break;
    }
}

#else
typedef int cpu_few_avx2_is_not_for_this_machine;
#endif
