/* Eight rows at a time, a row to a lane: sums of a row go over its dims in ascending order as in the plain
 * code, and every operation is the same IEEE operation, so every byte is the same. */
#include "kernels/cpu/cpu_page_write.h"

#if defined(__x86_64__)

#include "base/half.h"

#include <immintrin.h>
#include <string.h>

#define ROWS   8
#define AVX2   __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline)) AVX2

#define TABLE_BITS 3 /* of an index into eight floats in a register */

/* out[i] = dim i of all rows, as f32. */
INLINE void transpose(const uint16_t *rows, int64_t stride, __m256 out[ROWS])
{
    __m128i a[ROWS];
    __m128i b[ROWS];
    for (int i = 0; i < ROWS; i++) {
        a[i] = _mm_loadu_si128((const __m128i *)(const void *)(rows + i * stride));
    }
    for (int i = 0; i < 4; i++) { /* rows i and i + 4: [dim][two rows] */
        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    for (int i = 0; i < 2; i++) { /* rows i, i + 2, i + 4, i + 6 */
        for (int k = 0; k < 2; k++) {
            a[4 * i + 2 * k] = _mm_unpacklo_epi16(b[2 * i + k], b[2 * i + 4 + k]);
            a[4 * i + 2 * k + 1] = _mm_unpackhi_epi16(b[2 * i + k], b[2 * i + 4 + k]);
        }
    }
    for (int k = 0; k < 4; k++) { /* all rows, in order: dims 2 k and 2 k + 1 */
        const __m128i even = _mm_unpacklo_epi16(a[k], a[4 + k]);
        const __m128i odd = _mm_unpackhi_epi16(a[k], a[4 + k]);
        out[2 * k] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(even), 16));
        out[2 * k + 1] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(odd), 16));
    }
}

/* What the search compares with when `bit` is next: index is code >> (bit + 1). */
typedef struct code_table {
    __m256 steps[TABLE_BITS + 1]; /* of the first four bits, 1, 2, 4 and 8 thresholds */
    __m256 squares[2];            /* of centroids, up to 16 */
    float all_squares[256];
    const float *thresholds;
} code_table;

INLINE code_table table_of(const kern_segment *g, int bits)
{
    code_table t = {.thresholds = g->thresholds};
    float steps[ROWS] = {0};
    for (int level = 0; level <= TABLE_BITS && level < bits; level++) {
        const int step = 1 << (bits - 1 - level);
        for (int i = 0; i < 1 << level; i++) {
            steps[i] = g->thresholds[2 * step * i + step - 1];
        }
        t.steps[level] = _mm256_loadu_ps(steps);
    }
    for (int i = 0; i < 1 << bits; i++) {
        t.all_squares[i] = g->centroids[i] * g->centroids[i];
    }
    t.squares[0] = _mm256_loadu_ps(t.all_squares);
    t.squares[1] = _mm256_loadu_ps(t.all_squares + ROWS);
    return t;
}

/* How many thresholds are < u; NaN gives 0. */
INLINE __m256i codes_of(const code_table *t, __m256 u, int bits)
{
    __m256i prefix = _mm256_setzero_si256(); /* the bits found so far */
    for (int level = 0; level < bits; level++) {
        const int bit = bits - 1 - level;
        __m256 limit;
        if (level <= TABLE_BITS) {
            limit = _mm256_permutevar8x32_ps(t->steps[level], prefix);
        } else { /* at code + step - 1 */
            const __m256i code = _mm256_slli_epi32(prefix, bit + 1);
            limit = _mm256_i32gather_ps(t->thresholds + (1 << bit) - 1, code, 4);
        }
        const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(limit, u, _CMP_LT_OQ));
        prefix = _mm256_sub_epi32(_mm256_add_epi32(prefix, prefix), above);
    }
    return prefix;
}

INLINE __m256 squares_of(const code_table *t, __m256i code, int bits)
{
    if (bits > TABLE_BITS + 1) {
        return _mm256_i32gather_ps(t->all_squares, code, 4);
    }
    const __m256 low = _mm256_permutevar8x32_ps(t->squares[0], code);
    if (bits <= TABLE_BITS) {
        return low;
    }
    const __m256 high = _mm256_permutevar8x32_ps(t->squares[1], code);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}

/* Eight rows from row j on. */
INLINE void write_rows(const kern_segment *g, const code_table *t, const uint16_t *rows,
                       int32_t stride, int32_t j, uint8_t *head_page, const int bits)
{
    const int32_t row_bytes = g->n_dims / 8 * bits;
    uint8_t *codes = head_page + g->codes_offset + (int64_t)j * row_bytes;
    __m256 x[KERN_MAX_HEAD_DIM];
    __m256 sum = _mm256_setzero_ps();
    __m256 code_sum = _mm256_setzero_ps();

    for (int32_t d = 0; d < g->n_dims; d += 8) {
        transpose(rows + (int64_t)j * stride + d, stride, x + d);
        for (int i = 0; i < 8; i++) {
            sum = _mm256_add_ps(sum, _mm256_mul_ps(x[d + i], x[d + i]));
        }
    }
    const __m256 nu = _mm256_sqrt_ps(sum);
    const __m256 full = _mm256_cmp_ps(nu, _mm256_set1_ps(1e-10f), _CMP_GT_OQ);
    for (int32_t d = 0; d < g->n_dims; d += 8, codes += bits) {
        __m256i word[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()}; /* codes 0..3, 4..7 */
        uint32_t halves[2][ROWS];
        for (int i = 0; i < 8; i++) {
            const __m256 u = _mm256_and_ps(_mm256_div_ps(x[d + i], nu), full);
            const __m256i code = codes_of(t, u, bits);
            code_sum = _mm256_add_ps(code_sum, squares_of(t, code, bits));
            word[i / 4] = _mm256_or_si256(word[i / 4], _mm256_slli_epi32(code, i % 4 * bits));
        }
        memcpy(halves, word, sizeof halves);
        for (int r = 0; r < ROWS; r++) {
            const uint64_t all = halves[0][r] | (uint64_t)halves[1][r] << (4 * bits);
            memcpy(codes + r * row_bytes, &all, (size_t)bits);
        }
    }
    float norms[ROWS];
    _mm256_storeu_ps(norms, _mm256_and_ps(_mm256_div_ps(nu, _mm256_sqrt_ps(code_sum)), full));
    for (int r = 0; r < ROWS; r++) {
        const uint16_t norm = cpu_page_norm(norms[r]);
        memcpy(head_page + g->norms_offset + 2 * (j + r), &norm, sizeof norm);
    }
}

INLINE void write_segment(const kern_segment *g, const uint16_t *rows, int32_t stride,
                          uint8_t *head_page, const int bits)
{
    const code_table t = table_of(g, bits);
    for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j += ROWS) {
        write_rows(g, &t, rows, stride, j, head_page, bits);
    }
}

AVX2 void cpu_codes_encode_avx2(const kern_segment *g, const uint16_t *rows, int32_t stride,
                                uint8_t *head_page)
{
    switch (g->bits) {
    case 1: write_segment(g, rows, stride, head_page, 1); break;
    case 2: write_segment(g, rows, stride, head_page, 2); break;
    case 3: write_segment(g, rows, stride, head_page, 3); break;
    case 4: write_segment(g, rows, stride, head_page, 4); break;
    case 5: write_segment(g, rows, stride, head_page, 5); break;
    case 6: write_segment(g, rows, stride, head_page, 6); break;
    case 7: write_segment(g, rows, stride, head_page, 7); break;
    default: write_segment(g, rows, stride, head_page, 8); break;
    }
}

#else
typedef int cpu_page_write_avx2_is_not_for_this_machine;
#endif
