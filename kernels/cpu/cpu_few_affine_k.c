/* A row of codes is 16, 32 or 64 bytes.  Code k of byte i stands for dim i * (8 / bits) + k, so one shift and one
 * mask take 32 codes out of 32 bytes, and the queries they are multiplied with lie in the same order.
 * Products of a code with a signed byte are summed in pairs and then in 16 bits, which holds a whole row. */
#include "kernels/cpu/cpu_few_affine.h"

#if defined(__x86_64__)

#include "kernels/cpu/cpu_few_fold.h"
#include "kernels/cpu/cpu_few_path.h"

#include <math.h>
#include <string.h>

#define KEYS FOLD_KEYS
#define SUMS 8 /* in flight: rows times keys */

/* 128 bytes: every fourth into a vector of its own. */
FOLD_INLINE void split_by_4(const __m256i *bytes, int8_t *out)
{
    const __m256i fours = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i a = _mm256_shuffle_epi8(bytes[0], fours);
    const __m256i b = _mm256_shuffle_epi8(bytes[1], fours);
    const __m256i c = _mm256_shuffle_epi8(bytes[2], fours);
    const __m256i d = _mm256_shuffle_epi8(bytes[3], fours);
    const __m256i ab_low = _mm256_unpacklo_epi32(a, b);
    const __m256i cd_low = _mm256_unpacklo_epi32(c, d);
    const __m256i ab_high = _mm256_unpackhi_epi32(a, b);
    const __m256i cd_high = _mm256_unpackhi_epi32(c, d);
    const __m256i of_k[4] = {
        _mm256_unpacklo_epi64(ab_low, cd_low), _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high), _mm256_unpackhi_epi64(ab_high, cd_high)};
    for (int k = 0; k < 4; k++) {
        fold_store(out + k * FOLD_BYTES, _mm256_permutevar8x32_epi32(of_k[k], order));
    }
}

/* 64 bytes: every second into a vector of its own. */
FOLD_INLINE void split_by_2(const __m256i *bytes, int8_t *out)
{
    const __m256i twos = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    const __m256i a = _mm256_shuffle_epi8(bytes[0], twos);
    const __m256i b = _mm256_shuffle_epi8(bytes[1], twos);
    fold_store(out, _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(a, b), 0xd8));
    fold_store(out + FOLD_BYTES, _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(a, b), 0xd8));
}

/* A query for one group of positions: a vector of bytes for each shift of each vector of a row. */
FOLD_INLINE void fold_query(const float *q, const float *scaled, const float *scales,
                            const float *centres, int32_t n_dims, cpu_fold *out, const int bits)
{
    __m256i high[4] = {_mm256_setzero_si256()};
    __m256i low[4] = {_mm256_setzero_si256()};
    fold_round(q, scaled, scales, centres, n_dims, high, low, out);
    if (bits == 2) {
        split_by_4(high, out->high);
        split_by_4(low, out->low);
    } else {
        for (int i = 0; i < n_dims / FOLD_BYTES; i += 2) {
            split_by_2(high + i, out->high + i * FOLD_BYTES);
            split_by_2(low + i, out->low + i * FOLD_BYTES);
        }
    }
}

/* Sums of the lanes of eight vectors. */
FOLD_INLINE __m256i sums_of_8(const __m256i *a)
{
    __m256i two[SUMS / 2];
    __m256i four[SUMS / 4];
    for (int i = 0; i < SUMS / 2; i++) {
        two[i] = _mm256_add_epi32(_mm256_unpacklo_epi32(a[2 * i], a[2 * i + 1]),
                                  _mm256_unpackhi_epi32(a[2 * i], a[2 * i + 1]));
    }
    for (int i = 0; i < SUMS / 4; i++) {
        four[i] = _mm256_add_epi32(_mm256_unpacklo_epi64(two[2 * i], two[2 * i + 1]),
                                   _mm256_unpackhi_epi64(two[2 * i], two[2 * i + 1]));
    }
    return _mm256_add_epi32(_mm256_permute2x128_si256(four[0], four[1], 0x20),
                            _mm256_permute2x128_si256(four[0], four[1], 0x31));
}

/* n queries against n_keys positions of one group; rows times keys is 8 at a time. */
FOLD_INLINE void dot_keys(const uint8_t *codes, int32_t n_keys, const cpu_fold *queries,
                          const float *steps, bool add, float *s, const int n, const int bits,
                          const int row_bytes)
{
    const int keys = SUMS / n;
    const int per_byte = 8 / bits;
    const int vectors = row_bytes > FOLD_BYTES ? 2 : 1;
    const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1));
    const __m256i by_256 = _mm256_set1_epi16(256);
    const __m256i by_1 = _mm256_set1_epi16(1);
    int32_t middles[SUMS];
    float halves[SUMS];
    float biases[SUMS];
    for (int i = 0; i < SUMS; i++) {
        middles[i] = queries[i / keys].sum * ((1 << bits) - 1);
        halves[i] = 0.5f * steps[i / keys];
        biases[i] = queries[i / keys].bias;
    }

    for (int32_t j = 0; j < n_keys; j += keys) {
        __m256i sums[SUMS];
        for (int key = 0; key < keys; key++) {
            const uint8_t *row = codes + (j + key) * row_bytes;
            __m256i x[4];
            for (int v = 0; v < vectors; v++) {
                const __m256i packed = fold_codes(row + v * FOLD_BYTES, row_bytes);
                for (int k = 0; k < per_byte; k++) {
                    x[v * per_byte + k] =
                        _mm256_and_si256(_mm256_srli_epi16(packed, bits * k), mask);
                }
            }
            for (int r = 0; r < n; r++) {
                __m256i high = _mm256_setzero_si256();
                __m256i low = _mm256_setzero_si256();
                for (int i = 0; i < vectors * per_byte; i++) {
                    const __m256i h = fold_load(queries[r].high + i * FOLD_BYTES);
                    const __m256i l = fold_load(queries[r].low + i * FOLD_BYTES);
                    high = _mm256_add_epi16(high, _mm256_maddubs_epi16(x[i], h));
                    low = _mm256_add_epi16(low, _mm256_maddubs_epi16(x[i], l));
                    FOLD_KEEP_ORDER(high);
                    FOLD_KEEP_ORDER(low);
                }
                sums[r * keys + key] =
                    _mm256_add_epi32(_mm256_madd_epi16(high, by_256), _mm256_madd_epi16(low, by_1));
            }
        }
        const __m256i twice = _mm256_slli_epi32(sums_of_8(sums), 1);
        const __m256 whole = _mm256_cvtepi32_ps(_mm256_sub_epi32(twice, fold_load(middles)));
        float lanes[SUMS]; /* [row][key] */
        _mm256_storeu_ps(lanes,
                         _mm256_fmadd_ps(whole, _mm256_loadu_ps(halves), _mm256_loadu_ps(biases)));
        for (int r = 0; r < n; r++) {
            for (int key = 0; key < keys && add; key++) {
                lanes[r * keys + key] += s[r * KEYS + j + key];
            }
            memcpy(s + r * KEYS + j, lanes + r * keys, (size_t)keys * sizeof *s);
        }
    }
}

FOLD_INLINE void dot_segment(const kern_segment *g, int32_t head_dim, const uint8_t *head_page,
                             const float *q, float *s, const int n, const int bits,
                             const int row_bytes)
{
    const int32_t n_dims = row_bytes * 8 / bits;
    const int32_t n_groups = KEYS / g->group;
    cpu_fold queries[4];
    float steps[4];
    float scaled[4 * FOLD_DIMS];
    float scales[FOLD_GROUPS * FOLD_DIMS];
    float centres[FOLD_GROUPS * FOLD_DIMS];
    float most[FOLD_DIMS];

    fold_widen(head_page + g->scales_offset, n_groups * n_dims, scales);
    fold_widen(head_page + g->minima_offset, n_groups * n_dims, centres);
    fold_centre(scales, n_groups * n_dims, 0.5f * (float)((1 << bits) - 1), centres);
    fold_most(scales, n_groups, n_dims, most);
    for (int r = 0; r < n; r++) {
        steps[r] = fold_step(q + (int64_t)r * head_dim, most, n_dims, scaled + r * FOLD_DIMS);
    }
    for (int32_t i = 0; i < n_groups; i++) {
        for (int r = 0; r < n; r++) {
            fold_query(q + (int64_t)r * head_dim, scaled + r * FOLD_DIMS, scales + i * n_dims,
                       centres + i * n_dims, n_dims, &queries[r], bits);
        }
        dot_keys(head_page + g->codes_offset + i * g->group * row_bytes, g->group, queries, steps,
                 g->first_dim > 0, s + i * g->group, n, bits, row_bytes);
    }
}

/* 1, 2 or 4 rows. */
FOLD_AVX2 static void dot_rows(const kern_segment *g, int32_t head_dim, const uint8_t *head_page,
                               const float *q, float *s, int32_t n)
{
#define BY_ROWS(bits, row_bytes)                                                   \
    switch (n) {                                                                   \
    case 4: dot_segment(g, head_dim, head_page, q, s, 4, bits, row_bytes); break;  \
    case 2: dot_segment(g, head_dim, head_page, q, s, 2, bits, row_bytes); break;  \
    default: dot_segment(g, head_dim, head_page, q, s, 1, bits, row_bytes); break; \
    }
    if (g->bits == 2 && g->n_dims == FOLD_DIMS) {
        BY_ROWS(2, 32)
    } else if (g->bits == 2) {
        BY_ROWS(2, 16)
    } else if (g->n_dims == FOLD_DIMS) {
        BY_ROWS(4, 64)
    } else {
        BY_ROWS(4, 32)
    }
#undef BY_ROWS
}

bool cpu_few_affine_dot(const kern_side *side, int32_t head_dim, const uint8_t *head_page,
                        const float *q, float *s, int32_t n_rows)
{
    if (!(cpu_few_avx2.top(q, n_rows * head_dim) < INFINITY)) {
        return false;
    }
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        for (int32_t r = 0; r < n_rows;) {
            const int32_t n = n_rows - r >= 4 ? 4 : n_rows - r >= 2 ? 2 : 1;
            dot_rows(g, head_dim, head_page, q + (int64_t)r * head_dim + g->first_dim, s + r * KEYS,
                     n);
            r += n;
        }
    }
    return true;
}

#else

bool cpu_few_affine_dot(const kern_side *side, int32_t head_dim, const uint8_t *head_page,
                        const float *q, float *s, int32_t n_rows)
{
    (void)side, (void)head_dim, (void)head_page, (void)q, (void)s, (void)n_rows;
    return false;
}

#endif
