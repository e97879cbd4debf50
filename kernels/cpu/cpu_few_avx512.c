/* As cpu_few_avx2.c, with 64 codes, 32 levels or 16 floats to a register.
 *
 * Codes of V become bytes by two permutes and a multishift, whatever their width: eight codes go to a word of 64 bits,
 * each to its byte.  Levels are multiplied as pairs of 16 bits (VNNI).  bf16 rows shorter than a register are padded with
 * zeros on the query's side. */
#if defined(__x86_64__)

#include "kernels/cpu/cpu_few_ops_avx512.h"

#include <math.h>
#include <string.h>

#define KEYS      KERN_BLOCK_TOKENS
#define CODES     64
#define SUMS      8  /* in flight: rows times keys of a dot product */
#define CHUNK     32 /* keys of a dot product whose lanes are summed together */
#define SLICE     16 /* keys whose wide codes are values at a time */
#define MIX_TURNS (KEYS / 16)
#define PADDED    (KERN_MAX_HEAD_DIM + KERN_MAX_SEGMENTS * CODES)
#define STEPS     32767.0f

INLINE __mmask64 first_bytes(int32_t n)
{
    return n >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
}

INLINE float step_of(float top)
{
    return top > 1e-30f ? top / STEPS : 1.0f; /* below: nothing that a sum would notice */
}

/* The sum of n whole numbers, a multiple of 16. */
INLINE int32_t sum_row(const int16_t *x, int32_t n)
{
    __m512i sum = _mm512_setzero_si512();
    for (int32_t i = 0; i < n; i += LANES) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        sum = _mm512_add_epi32(sum, _mm512_cvtepi16_epi32(v));
    }
    return _mm512_reduce_add_epi32(sum);
}

/* out = round(x * factor), n a multiple of 16. */
INLINE void round_row(const float *x, int32_t n, float factor, int16_t *out)
{
    for (int32_t i = 0; i < n; i += LANES) {
        const __m512i v =
            _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(factor)));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), _mm512_cvtepi32_epi16(v));
    }
}

/* How 64 codes, 8 b bytes, become bytes. */
typedef struct unpacker {
    __m512i bytes;  /* of eight codes: to their word of 64 bits */
    __m512i shifts; /* of code i of a word */
    __m512i levels; /* of a byte's low six bits */
} unpacker;

INLINE unpacker unpacker_of(const uint8_t *levels, int bits)
{
    uint8_t bytes[CODES];
    uint8_t shifts[CODES];
    uint8_t table[CODES];
    unpacker u;
    for (int i = 0; i < CODES; i++) {
        bytes[i] = (uint8_t)(i % 8 < bits ? i / 8 * bits + i % 8 : 0);
        shifts[i] = (uint8_t)(i % 8 * bits);
        table[i] = bits <= CPU_FEW_LEVELS ? levels[i % (1 << bits)] : 0;
    }
    u.bytes = _mm512_loadu_si512(bytes);
    u.shifts = _mm512_loadu_si512(shifts);
    u.levels = _mm512_loadu_si512(table);
    return u;
}

/* Each byte's low b bits are the code; the bits above are its neighbour's. */
INLINE __m512i unpack(const unpacker *u, const uint8_t *p, int32_t n_codes, int bits)
{
    const __m512i packed = _mm512_maskz_loadu_epi8(first_bytes(n_codes / 8 * bits), p);
    return _mm512_multishift_epi64_epi8(u->shifts, _mm512_permutexvar_epi8(u->bytes, packed));
}

INLINE __m512i unpack_levels(const unpacker *u, const uint8_t *p, int32_t n_codes, int bits)
{
    return _mm512_permutexvar_epi8(unpack(u, p, n_codes, bits), u->levels);
}

/* The centroids of the codes of 5..8 bits of SLICE rows. */
INLINE void expand(const kern_segment *g, const uint8_t *p, int bits, float *out)
{
    const unpacker u = unpacker_of(NULL, bits);
    const int32_t n_codes = SLICE * g->n_dims; /* a multiple of 64 */
    uint8_t codes[CODES];
    for (int32_t i = 0; i < n_codes; i += CODES, p += 8 * bits) {
        const __m512i mask = _mm512_set1_epi8((char)((1 << bits) - 1));
        _mm512_storeu_si512(codes, _mm512_and_si512(unpack(&u, p, CODES, bits), mask));
        for (int k = 0; k < CODES; k += LANES) {
            const __m128i narrow = _mm_loadu_si128((const __m128i *)(const void *)(codes + k));
            const __m512 v = _mm512_i32gather_ps(_mm512_cvtepu8_epi32(narrow), g->centroids, 4);
            _mm512_storeu_ps(out + i + k, v);
        }
    }
}

ISA static void expand_rows(const kern_segment *g, const uint8_t *head_page, int32_t j, float *out)
{
    const uint8_t *p = head_page + g->codes_offset + (int64_t)j * (g->n_dims / 8 * g->bits);
    switch (g->bits) {
    case 5: expand(g, p, 5, out); break;
    case 6: expand(g, p, 6, out); break;
    case 7: expand(g, p, 7, out); break;
    default: expand(g, p, 8, out); break;
    }
}

/* 32 bf16 values: dims 0, 2 .. 30 and 1, 3 .. 31. */
INLINE __m512 even_of(__m512i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}

INLINE __m512 odd_of(__m512i x)
{
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32((int32_t)0xffff0000)));
}

typedef struct queries {                                /* of one pass, in steps of their row */
    int32_t pairs[CPU_FEW_PASS][KERN_MAX_HEAD_DIM / 2]; /* of dims, as pair_up says */
    float real[CPU_FEW_PASS][KERN_MAX_HEAD_DIM];
    _Alignas(64) float split[CPU_FEW_PASS][PADDED];     /* bf16: even, then odd dims of 32; segments
                                                       padded to whole registers */
    int32_t at[KERN_MAX_SEGMENTS];                      /* where a segment begins in it */
    int32_t half_bias[CPU_FEW_PASS][KERN_MAX_SEGMENTS]; /* half of bias * sum of whole numbers */
    float step[CPU_FEW_PASS];
    _Alignas(64) float sums[CHUNK * CPU_FEW_PASS][LANES]; /* [key][row] */
} queries;

#include "kernels/cpu/cpu_few_keys.inc"

INLINE void split_real(const float *x, float *out)
{
    const __m512i evens =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
    const __m512 a = _mm512_loadu_ps(x);
    const __m512 b = _mm512_loadu_ps(x + LANES);
    _mm512_store_ps(out, _mm512_permutex2var_ps(a, evens, b));
    _mm512_store_ps(out + LANES, _mm512_permutex2var_ps(a, odds, b));
}

/* Row r of a bf16 segment. */
INLINE void split_segment(const kern_segment *g, const float *row, float factor, float *out)
{
    float real[KERN_MAX_HEAD_DIM] = {0};
    for (int32_t d = 0; d < g->n_dims; d += LANES) {
        _mm512_storeu_ps(real + d, times(_mm512_loadu_ps(row + g->first_dim + d), factor));
    }
    for (int32_t d = 0; d < g->n_dims; d += 2 * LANES) {
        split_real(real + d, out + d);
    }
}

INLINE void load_queries(const cpu_few_call *call, const float *q, queries *x, const int n)
{
    int16_t whole[KERN_MAX_HEAD_DIM];
    for (int32_t i = 0; i < call->side->n_segments; i++) {
        x->at[i] = call->side->segments[i].first_dim + i * CODES;
        x->at[i] = (x->at[i] + CODES - 1) / CODES * CODES;
    }
    for (int r = 0; r < n; r++) {
        const float *row = q + (int64_t)r * call->head_dim;
        x->step[r] = step_of(cpu_few_avx2.top(row, call->head_dim));
        const float factor = 1.0f / x->step[r];
        round_row(row, call->head_dim, factor, whole);
        pair_up(whole, call->head_dim, x->pairs[r]);
        for (int32_t i = 0; i < call->side->n_segments; i++) {
            const kern_segment *g = &call->side->segments[i];
            if (g->bits <= CPU_FEW_LEVELS) {
                const int32_t sum = sum_row(whole + g->first_dim, g->n_dims);
                x->half_bias[r][i] = sum * call->plan->segments[i].bias / 2;
            } else if (g->bits == 16) {
                split_segment(g, row, factor, x->split[r] + x->at[i]);
            } else {
                for (int32_t d = g->first_dim; d < g->first_dim + g->n_dims; d += LANES) {
                    _mm512_storeu_ps(x->real[r] + d, times(_mm512_loadu_ps(row + d), factor));
                }
            }
        }
    }
}

INLINE __m256 pair_sums(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
}

/* The sums of the lanes of eight vectors, stride floats apart. */
INLINE __m256 lane_sums(const float *v, int32_t stride)
{
    __m256 a[8];
    for (int i = 0; i < 8; i++) {
        const float *p = v + (int64_t)i * stride;
        a[i] = _mm256_add_ps(_mm256_load_ps(p), _mm256_load_ps(p + 8));
    }
    const __m256 x = pair_sums(pair_sums(a[0], a[1]), pair_sums(a[2], a[3]));
    const __m256 y = pair_sums(pair_sums(a[4], a[5]), pair_sums(a[6], a[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
}

/* A chunk's sums to the rows of s. */
INLINE void put_chunk(const queries *x, float *s, bool add, const int n)
{
    for (int r = 0; r < n; r++) {
        for (int32_t k = 0; k < CHUNK; k += LANES) {
            const __m256 low = lane_sums(x->sums[k * n + r], n * LANES);
            const __m256 high = lane_sums(x->sums[(k + 8) * n + r], n * LANES);
            const __m512 sums = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
            put(s + r * KEYS + k, sums, real_to_all(x->step[r]), add);
        }
    }
}

INLINE void dot_bf16(const cpu_few_call *call, int32_t segment, queries *x, float *s,
                     cpu_few_fetcher *f, const int n)
{
    const kern_segment *g = &call->side->segments[segment];
    const int keys = SUMS / n;
    const int32_t row_bytes = 2 * g->n_dims;
    const uint8_t *p = call->head_page + g->codes_offset;

    for (int32_t j = 0; j < KEYS; j += keys, p += keys * row_bytes) {
        __m512 sums[SUMS];
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm512_setzero_ps();
        }
        cpu_few_fetch(f);
        for (int32_t d = 0; d < g->n_dims; d += 2 * LANES) {
            const __mmask64 mask = first_bytes(2 * (g->n_dims - d));
            for (int k = 0; k < keys; k++) {
                const __m512i v = _mm512_maskz_loadu_epi8(mask, p + k * row_bytes + 2 * d);
                const __m512 a = even_of(v);
                const __m512 b = odd_of(v);
                for (int r = 0; r < n; r++) {
                    const float *y = x->split[r] + x->at[segment] + d;
                    __m512 *sum = &sums[k * n + r];
                    *sum = _mm512_fmadd_ps(a, _mm512_load_ps(y), *sum);
                    *sum = _mm512_fmadd_ps(b, _mm512_load_ps(y + LANES), *sum);
                }
            }
        }
        for (int i = 0; i < SUMS; i++) {
            _mm512_store_ps(x->sums[j % CHUNK * n + i], sums[i]);
        }
        if ((j + keys) % CHUNK == 0) {
            put_chunk(x, s + j + keys - CHUNK, segment > 0, n);
        }
    }
}

typedef struct weights { /* of one segment: times the keys' norms */
    _Alignas(64) float real[CPU_FEW_PASS][KEYS];
    _Alignas(64) int16_t whole[CPU_FEW_PASS][KEYS];
    int32_t half_bias[CPU_FEW_PASS];
    float scale[CPU_FEW_PASS]; /* of a whole */
    float norms[KEYS];
    _Alignas(64) float values[SLICE * KERN_MAX_HEAD_DIM];
} weights;

INLINE void load_norms(const kern_segment *g, const uint8_t *head_page, float *out)
{
    for (int32_t j = 0; j < KEYS; j += LANES) {
        _mm512_storeu_ps(out + j, load_halves(head_page + g->norms_offset + 2 * j));
    }
}

INLINE void load_weights(const cpu_few_call *call, int32_t segment, const float *p, weights *w,
                         const int n)
{
    const kern_segment *g = &call->side->segments[segment];
    const cpu_few_segment *plan = &call->plan->segments[segment];

    load_norms(g, call->head_page, w->norms);
    for (int r = 0; r < n; r++) {
        for (int32_t j = 0; j < KEYS; j += LANES) {
            _mm512_store_ps(w->real[r] + j, _mm512_mul_ps(_mm512_loadu_ps(p + r * KEYS + j),
                                                          _mm512_loadu_ps(w->norms + j)));
        }
        if (g->bits <= CPU_FEW_LEVELS) {
            const float step = step_of(cpu_few_avx2.top(w->real[r], KEYS));
            round_row(w->real[r], KEYS, 1.0f / step, w->whole[r]);
            w->half_bias[r] = sum_row(w->whole[r], KEYS) * plan->bias / 2;
            w->scale[r] = 2.0f * plan->scale * step;
        }
    }
}

/* a[k] holds dims 16 l + 4 k .. + 3 in its quarter l: adds those of the first n_dims, times scale. */
INLINE void add_quarters(float *at, const __m512 *a, int32_t n_dims, float scale)
{
    const __m512 ab0 = _mm512_shuffle_f32x4(a[0], a[1], 0x88); /* a0 a2 b0 b2 */
    const __m512 ab1 = _mm512_shuffle_f32x4(a[0], a[1], 0xdd); /* a1 a3 b1 b3 */
    const __m512 cd0 = _mm512_shuffle_f32x4(a[2], a[3], 0x88);
    const __m512 cd1 = _mm512_shuffle_f32x4(a[2], a[3], 0xdd);
    const __m512 out[4] = {
        _mm512_shuffle_f32x4(ab0, cd0, 0x88), _mm512_shuffle_f32x4(ab1, cd1, 0x88),
        _mm512_shuffle_f32x4(ab0, cd0, 0xdd), _mm512_shuffle_f32x4(ab1, cd1, 0xdd)};
    for (int l = 0; l < 4 && l * LANES < n_dims; l++) {
        float *to = at + (int64_t)l * LANES;
        _mm512_storeu_ps(to, _mm512_fmadd_ps(out[l], _mm512_set1_ps(scale), _mm512_loadu_ps(to)));
    }
}

/* Two keys at a time: 32-bit lanes hold one dim of both. */
INLINE void mix_codes(const cpu_few_call *call, int32_t segment, const weights *w, float *o,
                      cpu_few_fetcher *f, const int n, const int bits)
{
    const kern_segment *g = &call->side->segments[segment];
    const int32_t row_bytes = g->n_dims / 8 * bits;
    const unpacker u = unpacker_of(call->plan->segments[segment].levels[0], bits);
    const __m512i zero = _mm512_setzero_si512();

    for (int32_t d = 0; d < g->n_dims; d += CODES) {
        const int32_t n_codes = g->n_dims - d < CODES ? g->n_dims - d : CODES;
        const uint8_t *p = call->head_page + g->codes_offset + d / 8 * bits;
        __m512i acc[CPU_FEW_PASS][4];
        for (int r = 0; r < n; r++) {
            for (int k = 0; k < 4; k++) {
                acc[r][k] = _mm512_set1_epi32(-w->half_bias[r]);
            }
        }
        for (int32_t j = 0; j < KEYS; j += 2, p += 2 * row_bytes) {
            const __m512i x = unpack_levels(&u, p, n_codes, bits);
            const __m512i y = unpack_levels(&u, p + row_bytes, n_codes, bits);
            const __m512i x_low = _mm512_unpacklo_epi8(x, zero);
            const __m512i x_high = _mm512_unpackhi_epi8(x, zero);
            const __m512i y_low = _mm512_unpacklo_epi8(y, zero);
            const __m512i y_high = _mm512_unpackhi_epi8(y, zero);
            const __m512i xy[4] = {
                _mm512_unpacklo_epi16(x_low, y_low), _mm512_unpackhi_epi16(x_low, y_low),
                _mm512_unpacklo_epi16(x_high, y_high), _mm512_unpackhi_epi16(x_high, y_high)};
            cpu_few_fetch(f);
            for (int r = 0; r < n; r++) {
                int32_t pair;
                memcpy(&pair, w->whole[r] + j, sizeof pair);
                for (int k = 0; k < 4; k++) {
                    acc[r][k] = _mm512_dpwssd_epi32(acc[r][k], xy[k], _mm512_set1_epi32(pair));
                }
            }
        }
        for (int r = 0; r < n; r++) {
            const __m512 a[4] = {_mm512_cvtepi32_ps(acc[r][0]), _mm512_cvtepi32_ps(acc[r][1]),
                                 _mm512_cvtepi32_ps(acc[r][2]), _mm512_cvtepi32_ps(acc[r][3])};
            add_quarters(o + (int64_t)r * call->head_dim + g->first_dim + d, a, n_codes,
                         w->scale[r]);
        }
    }
}

INLINE void mix_values(const cpu_few_call *call, int32_t segment, weights *w, float *o,
                       cpu_few_fetcher *f, const int n)
{
    const kern_segment *g = &call->side->segments[segment];

    for (int32_t j = 0; j < KEYS; j += SLICE) {
        expand_rows(g, call->head_page, j, w->values);
        for (int32_t d = 0; d < g->n_dims; d += LANES) {
            float *out = o + g->first_dim + d;
            const float *v = w->values + d;
            __m512 sums[CPU_FEW_PASS];
            for (int r = 0; r < n; r++) {
                sums[r] = _mm512_loadu_ps(out + (int64_t)r * call->head_dim);
            }
            cpu_few_fetch(f);
            for (int32_t k = 0; k < SLICE; k++, v += g->n_dims) {
                const __m512 a = _mm512_loadu_ps(v);
                for (int r = 0; r < n; r++) {
                    sums[r] = _mm512_fmadd_ps(_mm512_set1_ps(w->real[r][j + k]), a, sums[r]);
                }
            }
            for (int r = 0; r < n; r++) {
                _mm512_storeu_ps(out + (int64_t)r * call->head_dim, sums[r]);
            }
        }
    }
}

INLINE void mix_bf16(const cpu_few_call *call, int32_t segment, const float *p, float *o,
                     cpu_few_fetcher *f, const int n)
{
    const kern_segment *g = &call->side->segments[segment];
    const int32_t row_bytes = 2 * g->n_dims;
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));

    for (int32_t d = 0; d < g->n_dims; d += 2 * LANES) {
        const __mmask64 mask = first_bytes(2 * (g->n_dims - d));
        const uint8_t *v = call->head_page + g->codes_offset + 2 * d;
        __m512 even[CPU_FEW_PASS];
        __m512 odd[CPU_FEW_PASS];
        for (int r = 0; r < n; r++) {
            even[r] = _mm512_setzero_ps();
            odd[r] = _mm512_setzero_ps();
        }
        for (int32_t j = 0; j < KEYS; j++, v += row_bytes) {
            const __m512i x = _mm512_maskz_loadu_epi8(mask, v);
            const __m512 a = even_of(x);
            const __m512 b = odd_of(x);
            if (j % 8 == 0) {
                cpu_few_fetch(f);
            }
            for (int r = 0; r < n; r++) {
                const __m512 w = _mm512_set1_ps(p[r * KEYS + j]);
                even[r] = _mm512_fmadd_ps(w, a, even[r]);
                odd[r] = _mm512_fmadd_ps(w, b, odd[r]);
            }
        }
        for (int r = 0; r < n; r++) {
            float *at = o + (int64_t)r * call->head_dim + g->first_dim + d;
            const __m512 a = _mm512_permutex2var_ps(even[r], low, odd[r]);
            const __m512 b = _mm512_permutex2var_ps(even[r], high, odd[r]);
            _mm512_storeu_ps(at, _mm512_add_ps(a, _mm512_loadu_ps(at)));
            if (d + LANES < g->n_dims) {
                _mm512_storeu_ps(at + LANES, _mm512_add_ps(b, _mm512_loadu_ps(at + LANES)));
            }
        }
    }
}

#include "kernels/cpu/cpu_few_frame.inc"

ISA static float top_of(const float *x, int32_t n)
{
    return cpu_few_avx2.top(x, n);
}

const cpu_few_path cpu_few_avx512 = {top_of, dot, mix};

#else
typedef int cpu_few_avx512_is_not_for_this_machine;
#endif
