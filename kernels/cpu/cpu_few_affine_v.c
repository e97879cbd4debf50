/* Rows of codes as in cpu_few_affine_k.c.  Two positions at a time: their bytes become neighbours, so that one
 * instruction adds both products.  Sums stay in 16 bits for as many positions as fit, then in 32. */
#include "kernels/cpu/cpu_few_affine.h"

#if defined(__x86_64__)

#include "kernels/cpu/cpu_few_fold.h"
#include "kernels/cpu/cpu_few_path.h"

#include <math.h>
#include <string.h>

#define KEYS FOLD_KEYS
#define HALF 8 /* bytes of half a lane: their channels share a group */

/* n pairs of floats, a multiple of 8, to their first and second ones. */
FOLD_INLINE void unzip(const float *pairs, int32_t n, float *first_out, float *second_out)
{
    for (int32_t i = 0; i < n; i += FOLD_LANES) {
        const __m256 a = _mm256_loadu_ps(pairs + 2 * i);
        const __m256 b = _mm256_loadu_ps(pairs + 2 * i + FOLD_LANES);
        const __m256d x = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88));
        const __m256d y = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xdd));
        _mm256_storeu_ps(first_out + i, _mm256_castpd_ps(_mm256_permute4x64_pd(x, 0xd8)));
        _mm256_storeu_ps(second_out + i, _mm256_castpd_ps(_mm256_permute4x64_pd(y, 0xd8)));
    }
}

/* Values of 128 positions by group of channels: out [n_groups][128] of fp16 [128][n_groups]. */
FOLD_INLINE void by_group(const uint8_t *section, int32_t n_groups, float *out)
{
    float flat[FOLD_GROUPS * KEYS];
    float odd_even[FOLD_GROUPS * KEYS];

    fold_widen(section, n_groups * KEYS, n_groups == 1 ? out : flat);
    if (n_groups == 2) {
        unzip(flat, KEYS, out, out + KEYS);
    } else if (n_groups == 4) {
        unzip(flat, 2 * KEYS, odd_even, odd_even + 2 * KEYS);
        unzip(odd_even, KEYS, out, out + 2 * KEYS);
        unzip(odd_even + 2 * KEYS, KEYS, out + KEYS, out + 3 * KEYS);
    }
}

/* Bytes second_half * 8 .. of both lanes of each row: sums over all positions of code times weight, out
 * [8 / bits][row_bytes].  The low lane's weights are a's, the high lane's b's. */
FOLD_INLINE void mix_bytes(const uint8_t *codes, const cpu_fold *a, const cpu_fold *b, int32_t *out,
                           const int second_half, const int bits, const int row_bytes)
{
    const int per_byte = 8 / bits;
    const int flush_keys =
        bits == 2 ? 64 : 16; /* 2 * 3 * 128 * 32 and 2 * 15 * 128 * 8 fit 16 bits */
    const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
    const __m256i both = _mm256_set1_epi32(1 << 16 | 256); /* 256 high + low of neighbours */
    __m256i total[4][2];
    for (int k = 0; k < per_byte; k++) {
        total[k][0] = _mm256_setzero_si256();
        total[k][1] = _mm256_setzero_si256();
    }
    for (int32_t begin = 0; begin < KEYS; begin += flush_keys) {
        __m256i high[4];
        __m256i low[4];
        for (int k = 0; k < per_byte; k++) {
            high[k] = _mm256_setzero_si256();
            low[k] = _mm256_setzero_si256();
        }
        for (int32_t j = begin; j < begin + flush_keys; j += 16) {
            const __m256i h16 = _mm256_loadu2_m128i((const __m128i *)(const void *)(b->high + j),
                                                    (const __m128i *)(const void *)(a->high + j));
            const __m256i l16 = _mm256_loadu2_m128i((const __m128i *)(const void *)(b->low + j),
                                                    (const __m128i *)(const void *)(a->low + j));
            for (int i = 0; i < 16; i += 2) {
                const uint8_t *p = codes + (j + i) * row_bytes;
                const __m256i pick = _mm256_set1_epi16((int16_t)((i + 1) << 8 | i));
                const __m256i h = _mm256_shuffle_epi8(h16, pick);
                const __m256i l = _mm256_shuffle_epi8(l16, pick);
                const __m256i x = fold_codes(p, row_bytes);
                const __m256i y = fold_codes(p + row_bytes, row_bytes);
                const __m256i pairs =
                    second_half ? _mm256_unpackhi_epi8(x, y) : _mm256_unpacklo_epi8(x, y);
                for (int k = 0; k < per_byte; k++) {
                    const __m256i code = _mm256_and_si256(_mm256_srli_epi16(pairs, bits * k), mask);
                    high[k] = _mm256_add_epi16(high[k], _mm256_maddubs_epi16(code, h));
                    low[k] = _mm256_add_epi16(low[k], _mm256_maddubs_epi16(code, l));
                    FOLD_KEEP_ORDER(high[k]);
                    FOLD_KEEP_ORDER(low[k]);
                }
            }
        }
        for (int k = 0; k < per_byte; k++) {
            const __m256i x = _mm256_madd_epi16(_mm256_unpacklo_epi16(high[k], low[k]), both);
            const __m256i y = _mm256_madd_epi16(_mm256_unpackhi_epi16(high[k], low[k]), both);
            total[k][0] = _mm256_add_epi32(total[k][0], x);
            total[k][1] = _mm256_add_epi32(total[k][1], y);
        }
    }
    for (int k = 0; k < per_byte; k++) {
        int32_t *at = out + k * row_bytes + second_half * HALF;
        fold_store(at, _mm256_permute2x128_si256(total[k][0], total[k][1], 0x20));
        if (row_bytes >= FOLD_BYTES) {
            fold_store(at + 2 * HALF, _mm256_permute2x128_si256(total[k][0], total[k][1], 0x31));
        }
    }
}

/* o [n_dims] += one row of weights times V. */
FOLD_INLINE void mix_row(const kern_segment *g, const uint8_t *codes, const cpu_fold *weights,
                         float step, float *o, const int bits, const int row_bytes)
{
    const int per_byte = 8 / bits;
    const int32_t group_bytes = g->group / per_byte;
    const float half = 0.5f * step;
    int32_t sums[FOLD_DIMS]; /* [8 / bits][row_bytes] */

    for (int32_t i = 0; i < row_bytes; i += FOLD_BYTES) {
        const int32_t high_lane = row_bytes < FOLD_BYTES ? i : i + 2 * HALF;
        mix_bytes(codes + i, &weights[i / group_bytes], &weights[high_lane / group_bytes], sums + i,
                  0, bits, row_bytes);
        mix_bytes(codes + i, &weights[(i + HALF) / group_bytes],
                  &weights[(high_lane + HALF) / group_bytes], sums + i, 1, bits, row_bytes);
    }
    for (int32_t first = 0; first < row_bytes; first += group_bytes) {
        const cpu_fold *w = &weights[first / group_bytes];
        const int32_t middle = w->sum * ((1 << bits) - 1);
        for (int32_t i = first; i < first + group_bytes; i++) {
            for (int k = 0; k < per_byte; k++) {
                const int32_t twice = 2 * sums[k * row_bytes + i];
                o[i * per_byte + k] += half * (float)(twice - middle) + w->bias;
            }
        }
    }
}

FOLD_INLINE void mix_segment(const kern_segment *g, int32_t head_dim, const uint8_t *head_page,
                             const float *p, float *o, int32_t n_rows, const int bits,
                             const int row_bytes)
{
    const int32_t n_groups = g->n_dims / g->group;
    cpu_fold weights[FOLD_GROUPS];
    float scaled[KEYS];
    float scales[FOLD_GROUPS * KEYS];
    float centres[FOLD_GROUPS * KEYS];
    float most[KEYS];

    by_group(head_page + g->scales_offset, n_groups, scales);
    by_group(head_page + g->minima_offset, n_groups, centres);
    fold_centre(scales, n_groups * KEYS, 0.5f * (float)((1 << bits) - 1), centres);
    fold_most(scales, n_groups, KEYS, most);
    for (int32_t r = 0; r < n_rows; r++) {
        const float step = fold_step(p + r * KEYS, most, KEYS, scaled);
        for (int32_t i = 0; i < n_groups; i++) {
            __m256i high[KEYS / FOLD_BYTES];
            __m256i low[KEYS / FOLD_BYTES];
            fold_round(p + r * KEYS, scaled, scales + i * KEYS, centres + i * KEYS, KEYS, high, low,
                       &weights[i]);
            for (int k = 0; k < KEYS / FOLD_BYTES; k++) {
                fold_store(weights[i].high + k * FOLD_BYTES, high[k]);
                fold_store(weights[i].low + k * FOLD_BYTES, low[k]);
            }
        }
        mix_row(g, head_page + g->codes_offset, weights, step, o + (int64_t)r * head_dim, bits,
                row_bytes);
    }
}

FOLD_AVX2 static void mix_rows(const kern_segment *g, int32_t head_dim, const uint8_t *head_page,
                               const float *p, float *o, int32_t n_rows)
{
    if (g->bits == 2 && g->n_dims == FOLD_DIMS) {
        mix_segment(g, head_dim, head_page, p, o, n_rows, 2, 32);
    } else if (g->bits == 2) {
        mix_segment(g, head_dim, head_page, p, o, n_rows, 2, 16);
    } else if (g->n_dims == FOLD_DIMS) {
        mix_segment(g, head_dim, head_page, p, o, n_rows, 4, 64);
    } else {
        mix_segment(g, head_dim, head_page, p, o, n_rows, 4, 32);
    }
}

bool cpu_few_affine_mix(const kern_side *side, int32_t head_dim, const uint8_t *head_page,
                        const float *p, float *o, int32_t n_rows)
{
    if (!(cpu_few_avx2.top(p, n_rows * KEYS) < INFINITY)) {
        return false;
    }
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        mix_rows(g, head_dim, head_page, p, o + g->first_dim, n_rows);
    }
    return true;
}

#else

bool cpu_few_affine_mix(const kern_side *side, int32_t head_dim, const uint8_t *head_page,
                        const float *p, float *o, int32_t n_rows)
{
    (void)side, (void)head_dim, (void)head_page, (void)p, (void)o, (void)n_rows;
    return false;
}

#endif
