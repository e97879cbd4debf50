/* Both products go 16 dims at a time.  A group of 8 bf16 or f32 values fills a register, 16 levels of 16 bits too.
 *
 * dot  Segment after segment, 32 keys at a time: eight sums of (key, row) in registers, then times the key's norm
 *      into a buffer of vectors, whose lanes are summed when all segments have been added.
 * mix  Segments have dims of their own: sums over keys of 16 dims and up to four rows stay in registers. */
#include "kernels/cpu/cpu_few_path.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define KEYS      KERN_BLOCK_TOKENS
#define LANES     8
#define SUMS      8  /* in flight: rows times keys of a dot product */
#define CHUNK     32 /* keys of a dot product whose sums are kept */
#define SLICE     16 /* keys whose wide codes are values at a time */
#define MIX_TURNS (KEYS / SLICE)
#define ISA       __attribute__((target("avx2,fma,f16c")))
#define INLINE    static inline __attribute__((always_inline)) ISA

INLINE __m256i load_i(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

ISA static float top_of(const float *x, int32_t n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256(); /* magnitudes sort like integers, NaN above infinity */
    uint32_t lanes[LANES];
    uint32_t most = 0;
#pragma GCC unroll 4
    for (int32_t i = 0; i < n; i += LANES) {
        top = _mm256_max_epu32(top, _mm256_and_si256(load_i(x + i), magnitude));
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

/* A row of finite values whose largest magnitude is top counts in steps of this. */
INLINE float step_of(float top)
{
    return top > 1e-30f ? top / 32767.0f : 1.0f; /* below: nothing that a sum would notice */
}

/* out = round(x * factor), n a multiple of 16; returns the sum of out. */
INLINE int32_t round_row(const float *x, int32_t n, float factor, int16_t *out)
{
    const __m256 f = _mm256_set1_ps(factor);
    __m256i sum = _mm256_setzero_si256();
    int32_t lanes[LANES];
    for (int32_t i = 0; i < n; i += 2 * LANES) {
        const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), f));
        const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + LANES), f));
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(out + i), packed);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(packed, _mm256_set1_epi16(1)));
    }
    memcpy(lanes, &sum, sizeof lanes);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] + lanes[6] + lanes[7];
}

/* The norms of n keys from j on, times factor; n a multiple of 8. */
INLINE void load_norms(const kern_segment *g, const uint8_t *head_page, int32_t j, int32_t n,
                       float factor, float *out)
{
    for (int32_t i = 0; i < n; i += LANES) {
        const uint8_t *p = head_page + g->norms_offset + 2 * (j + i);
        const __m256 x = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(x, _mm256_set1_ps(factor)));
    }
}

/* How 16 codes of 1..4 bits, 2 b bytes, become 16 levels in 16-bit lanes. */
typedef struct unpacker {
    __m256i bytes;  /* the two bytes that hold code i */
    __m256i shift;  /* times a power of two: the code's top bit becomes the lane's */
    __m256i levels; /* level 0 is 0: so is the lane's high byte */
} unpacker;

INLINE unpacker unpacker_of(const cpu_few_segment *plan, int bits)
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
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)plan->levels));
    return u;
}

INLINE __m256i unpack(const unpacker *u, const uint8_t *p, int bits)
{
    int64_t word;
    memcpy(&word, p, sizeof word);
    const __m256i pairs = _mm256_shuffle_epi8(_mm256_set1_epi64x(word), u->bytes);
    const __m256i codes = _mm256_srli_epi16(_mm256_mullo_epi16(pairs, u->shift), 16 - bits);
    return _mm256_shuffle_epi8(u->levels, codes);
}

/* How 16 codes of 5 or 6 bits become centroids.  A byte shuffle looks up eight 16-bit entries; the index counts down by
 * one table a step and looks up 0 once it is negative, so entries are kept as differences (xor) to those of the
 * table before, and what all steps give adds up to the entry. */
typedef struct expander {
    __m256i bytes; /* as in unpacker, eight codes to a half of the register */
    __m256i shift;
    __m256i tables[2][4]; /* low and high halves of centroids */
} expander;

#define N_TABLES(bits) (1 << ((bits)-4))

INLINE __m256i twice_128(const void *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}

INLINE expander expander_of(const cpu_few_segment *plan, int bits)
{
    uint8_t bytes[32];
    uint16_t shift[16];
    expander e;
    for (int i = 0; i < 16; i++) {
        bytes[2 * i] = (uint8_t)(i % 8 * bits / 8);
        bytes[2 * i + 1] = (uint8_t)(i % 8 * bits / 8 + 1);
        shift[i] = (uint16_t)(1u << (16 - bits - i % 8 * bits % 8));
    }
    memcpy(&e.bytes, bytes, sizeof bytes);
    memcpy(&e.shift, shift, sizeof shift);
    for (int half = 0; half < 2; half++) {
        for (int k = 0; k < N_TABLES(bits); k++) {
            e.tables[half][k] = twice_128(plan->halves[half] + 8 * k);
        }
        for (int k = N_TABLES(bits) - 1; k > 0; k--) {
            e.tables[half][k] = _mm256_xor_si256(e.tables[half][k], e.tables[half][k - 1]);
        }
    }
    return e;
}

/* 16 centroids of the codes at p, 2 b bytes. */
INLINE void expand(const expander *e, const uint8_t *p, int bits, float *out)
{
    const __m256i packed =
        _mm256_set_m128i(_mm_loadl_epi64((const __m128i *)(const void *)(p + bits)),
                         _mm_loadl_epi64((const __m128i *)(const void *)p));
    const __m256i pairs = _mm256_mullo_epi16(_mm256_shuffle_epi8(packed, e->bytes), e->shift);
    const __m256i code = _mm256_srli_epi16(pairs, 16 - bits);
    const __m256i from_0 = _mm256_sub_epi16(code, _mm256_set1_epi16((int16_t)(1 << (bits - 1))));
    const __m256i sign = _mm256_srai_epi16(from_0, 15);
    const __m256i entry = _mm256_xor_si256(from_0, sign); /* codes n - 1 - i and n + i: i */
    __m256i at = _mm256_add_epi16(_mm256_mullo_epi16(entry, _mm256_set1_epi16(0x0202)),
                                  _mm256_set1_epi16(0x0100));
    __m256i low = _mm256_setzero_si256();
    __m256i high = _mm256_and_si256(sign, _mm256_set1_epi16((int16_t)0x8000));
    for (int k = 0; k < N_TABLES(bits); k++) {
        low = _mm256_xor_si256(low, _mm256_shuffle_epi8(e->tables[0][k], at));
        high = _mm256_xor_si256(high, _mm256_shuffle_epi8(e->tables[1][k], at));
        at = _mm256_sub_epi8(at, _mm256_set1_epi8(16));
    }
    const __m256i a = _mm256_unpacklo_epi16(low, high); /* dims 0..3, 8..11 */
    const __m256i b = _mm256_unpackhi_epi16(low, high);
    _mm256_storeu_ps(out, _mm256_castsi256_ps(_mm256_permute2x128_si256(a, b, 0x20)));
    _mm256_storeu_ps(out + LANES, _mm256_castsi256_ps(_mm256_permute2x128_si256(a, b, 0x31)));
}

INLINE void expand_slice(const cpu_few_segment *plan, const uint8_t *p, int32_t n, int bits,
                         float *out)
{
    const expander e = expander_of(plan, bits);
    for (int32_t i = 0; i < n; i += 16, p += 2 * bits) {
        expand(&e, p, bits, out + i);
    }
}

/* 7 and 8 bits: the shuffles would be 16 and 32 a register, and gathers are no faster than this. */
INLINE void look_up_slice(const float *centroids, const uint8_t *p, int32_t n, int bits, float *out)
{
    for (int32_t i = 0; i < n; i += 8, p += bits) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        for (int k = 0; k < 8; k++) {
            memcpy(out + i + k, centroids + (word >> (k * bits) & ((1u << bits) - 1)), sizeof *out);
        }
    }
}

/* The centroids of the codes of SLICE rows from j on. */
ISA static void expand_rows(const cpu_few_call *call, int32_t segment, int32_t j, float *out)
{
    const kern_segment *g = &call->side->segments[segment];
    const cpu_few_segment *plan = &call->plan->segments[segment];
    const uint8_t *p = call->head_page + g->codes_offset + (int64_t)j * (g->n_dims / 8 * g->bits);
    switch (g->bits) {
    case 5: expand_slice(plan, p, SLICE * g->n_dims, 5, out); break;
    case 6: expand_slice(plan, p, SLICE * g->n_dims, 6, out); break;
    case 7: look_up_slice(g->centroids, p, SLICE * g->n_dims, 7, out); break;
    default: look_up_slice(g->centroids, p, SLICE * g->n_dims, 8, out); break;
    }
}

/* 16 bf16 values: dims 0, 2 .. 14 and 1, 3 .. 15. */
INLINE __m256 even_of(__m256i x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}

INLINE __m256 odd_of(__m256i x)
{
    return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32((int32_t)0xffff0000)));
}

typedef struct queries { /* of one pass, in steps of their row */
    _Alignas(32) int16_t whole[CPU_FEW_PASS][KERN_MAX_HEAD_DIM];
    _Alignas(32) float real[CPU_FEW_PASS]
                           [KERN_MAX_HEAD_DIM]; /* bf16 segments: even, then odd dims of 16 */
    int32_t half_bias[CPU_FEW_PASS][KERN_MAX_SEGMENTS]; /* half of bias * sum of whole */
    float step[CPU_FEW_PASS];
    _Alignas(32) float sums[CHUNK * CPU_FEW_PASS][LANES]; /* [key][row] */
    float norms[CHUNK];
    _Alignas(32) float values[SLICE * KERN_MAX_HEAD_DIM];
} queries;

INLINE void load_queries(const cpu_few_call *call, const float *q, queries *x, const int n)
{
    const __m256i evens = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    for (int r = 0; r < n; r++) {
        const float *row = q + (int64_t)r * call->head_dim;
        x->step[r] = step_of(top_of(row, call->head_dim));
        const float factor = 1.0f / x->step[r];
        for (int32_t i = 0; i < call->side->n_segments; i++) {
            const kern_segment *g = &call->side->segments[i];
            const int32_t d = g->first_dim;
            if (g->bits <= CPU_FEW_LEVELS) {
                const int32_t sum = round_row(row + d, g->n_dims, factor, x->whole[r] + d);
                x->half_bias[r][i] = sum * call->plan->segments[i].bias / 2;
                continue;
            }
            for (int32_t k = d; k < d + g->n_dims; k += 2 * LANES) {
                const __m256 f = _mm256_set1_ps(factor);
                __m256 a = _mm256_mul_ps(_mm256_loadu_ps(row + k), f);
                __m256 b = _mm256_mul_ps(_mm256_loadu_ps(row + k + LANES), f);
                if (g->bits == 16) {
                    const __m256 a_split = _mm256_permutevar8x32_ps(a, evens);
                    const __m256 b_split = _mm256_permutevar8x32_ps(b, evens);
                    const __m256i odds = _mm256_add_epi32(evens, _mm256_set1_epi32(1));
                    const __m256 a_odd = _mm256_permutevar8x32_ps(a, odds);
                    const __m256 b_odd = _mm256_permutevar8x32_ps(b, odds);
                    a = _mm256_blend_ps(a_split, b_split, 0xf0);
                    b = _mm256_blend_ps(a_odd, b_odd, 0xf0);
                }
                _mm256_store_ps(x->real[r] + k, a);
                _mm256_store_ps(x->real[r] + k + LANES, b);
            }
        }
    }
}

/* Eight finished sums of (key, row) from key k of the chunk on, times the keys' norms. */
INLINE void keep(queries *x, int32_t k, const __m256 *sums, bool norms, bool add, const int n)
{
    for (int i = 0; i < SUMS; i++) {
        float *at = x->sums[k * n + i];
        const __m256 norm = norms ? _mm256_set1_ps(x->norms[k + i / n]) : _mm256_set1_ps(1.0f);
        const __m256 v =
            add ? _mm256_fmadd_ps(sums[i], norm, _mm256_load_ps(at)) : _mm256_mul_ps(sums[i], norm);
        _mm256_store_ps(at, v);
    }
}

INLINE void dot_codes(const cpu_few_call *call, int32_t segment, queries *x, int32_t j0,
                      cpu_few_fetcher *f, const int n, const int bits)
{
    const kern_segment *g = &call->side->segments[segment];
    const int keys = SUMS / n;
    const int32_t row_bytes = g->n_dims / 8 * bits;
    const unpacker u = unpacker_of(&call->plan->segments[segment], bits);
    const uint8_t *codes = call->head_page + g->codes_offset + (int64_t)j0 * row_bytes;

    load_norms(g, call->head_page, j0, CHUNK, 2.0f * call->plan->segments[segment].scale, x->norms);
    for (int32_t j = 0; j < CHUNK; j += keys, codes += keys * row_bytes) {
        const uint8_t *p = codes;
        __m256i acc[SUMS];
        __m256 sums[SUMS];
        for (int i = 0; i < SUMS; i++) {
            acc[i] = _mm256_zextsi128_si256(_mm_cvtsi32_si128(-x->half_bias[i % n][segment]));
        }
        cpu_few_fetch(f);
        for (int32_t d = g->first_dim; d < g->first_dim + g->n_dims; d += 16, p += 2 * bits) {
            for (int k = 0; k < keys; k++) {
                const __m256i v = unpack(&u, p + k * row_bytes, bits);
                for (int r = 0; r < n; r++) {
                    const __m256i y = load_i(x->whole[r] + d);
                    acc[k * n + r] = _mm256_add_epi32(acc[k * n + r], _mm256_madd_epi16(v, y));
                }
            }
        }
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm256_cvtepi32_ps(acc[i]);
        }
        keep(x, j, sums, true, segment > 0, n);
    }
}

INLINE void dot_values(const cpu_few_call *call, int32_t segment, queries *x, int32_t j0,
                       cpu_few_fetcher *f, const int n)
{
    const kern_segment *g = &call->side->segments[segment];
    const int keys = SUMS / n;

    load_norms(g, call->head_page, j0, CHUNK, 1.0f, x->norms);
    for (int32_t j = 0; j < CHUNK; j += keys) {
        const float *v = x->values + (int64_t)(j % SLICE) * g->n_dims;
        __m256 sums[SUMS];
        if (j % SLICE == 0) {
            expand_rows(call, segment, j0 + j, x->values);
        }
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm256_setzero_ps();
        }
        cpu_few_fetch(f);
        for (int32_t d = 0; d < g->n_dims; d += LANES) {
            for (int k = 0; k < keys; k++) {
                const __m256 a = _mm256_loadu_ps(v + k * g->n_dims + d);
                for (int r = 0; r < n; r++) {
                    const __m256 y = _mm256_load_ps(x->real[r] + g->first_dim + d);
                    sums[k * n + r] = _mm256_fmadd_ps(a, y, sums[k * n + r]);
                }
            }
        }
        keep(x, j, sums, true, segment > 0, n);
    }
}

INLINE void dot_bf16(const cpu_few_call *call, int32_t segment, queries *x, int32_t j0,
                     cpu_few_fetcher *f, const int n)
{
    const kern_segment *g = &call->side->segments[segment];
    const int keys = SUMS / n;
    const int32_t row_bytes = 2 * g->n_dims;
    const uint8_t *p = call->head_page + g->codes_offset + (int64_t)j0 * row_bytes;

    for (int32_t j = 0; j < CHUNK; j += keys, p += keys * row_bytes) {
        __m256 sums[SUMS];
        for (int i = 0; i < SUMS; i++) {
            sums[i] = _mm256_setzero_ps();
        }
        cpu_few_fetch(f);
        for (int32_t d = 0; d < g->n_dims; d += 2 * LANES) {
            for (int k = 0; k < keys; k++) {
                const __m256i v = load_i(p + k * row_bytes + 2 * d);
                const __m256 a = even_of(v);
                const __m256 b = odd_of(v);
                for (int r = 0; r < n; r++) {
                    const float *y = x->real[r] + g->first_dim + d;
                    sums[k * n + r] = _mm256_fmadd_ps(a, _mm256_load_ps(y), sums[k * n + r]);
                    sums[k * n + r] =
                        _mm256_fmadd_ps(b, _mm256_load_ps(y + LANES), sums[k * n + r]);
                }
            }
        }
        keep(x, j, sums, false, segment > 0, n);
    }
}

/* Sums of neighbours of two vectors; unlike hadd, two shuffles and an addition on every CPU. */
INLINE __m256 pair_sums(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
}

/* The sums of the lanes of eight vectors, stride floats apart. */
INLINE __m256 lane_sums(const float *v, int32_t stride)
{
    __m256 a[LANES];
    for (int i = 0; i < LANES; i++) {
        a[i] = _mm256_load_ps(v + (int64_t)i * stride);
    }
    const __m256 x = pair_sums(pair_sums(a[0], a[1]), pair_sums(a[2], a[3]));
    const __m256 y = pair_sums(pair_sums(a[4], a[5]), pair_sums(a[6], a[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
}

/* The chunk's sums to the rows of s. */
INLINE void put_chunk(const queries *x, float *s, const int n)
{
    for (int r = 0; r < n; r++) {
        for (int32_t k = 0; k < CHUNK; k += LANES) {
            const __m256 sums = lane_sums(x->sums[k * n + r], n * LANES);
            _mm256_storeu_ps(s + r * KEYS + k, _mm256_mul_ps(sums, _mm256_set1_ps(x->step[r])));
        }
    }
}

typedef struct weights { /* of one segment: times the keys' norms */
    _Alignas(32) float real[CPU_FEW_PASS][KEYS];
    _Alignas(32) int16_t whole[CPU_FEW_PASS][KEYS];
    int32_t half_bias[CPU_FEW_PASS];
    float scale[CPU_FEW_PASS]; /* of a whole */
    float norms[KEYS];
    _Alignas(32) float values[SLICE * KERN_MAX_HEAD_DIM];
} weights;

INLINE void load_weights(const cpu_few_call *call, int32_t segment, const float *p, weights *w,
                         const int n)
{
    const kern_segment *g = &call->side->segments[segment];
    const cpu_few_segment *plan = &call->plan->segments[segment];

    load_norms(g, call->head_page, 0, KEYS, 1.0f, w->norms);
    for (int r = 0; r < n; r++) {
        for (int32_t j = 0; j < KEYS; j += LANES) {
            _mm256_store_ps(w->real[r] + j, _mm256_mul_ps(_mm256_loadu_ps(p + r * KEYS + j),
                                                          _mm256_loadu_ps(w->norms + j)));
        }
        if (g->bits <= CPU_FEW_LEVELS) {
            const float step = step_of(top_of(w->real[r], KEYS));
            const int32_t sum = round_row(w->real[r], KEYS, 1.0f / step, w->whole[r]);
            w->half_bias[r] = sum * plan->bias / 2;
            w->scale[r] = 2.0f * plan->scale * step;
        }
    }
}

/* Adds 16 dims that lie as dims 0..3, 8..11 and 4..7, 12..15, times scale. */
INLINE void add_dims(float *at, __m256 low, __m256 high, float scale)
{
    const __m256 f = _mm256_set1_ps(scale);
    const __m256 a = _mm256_permute2f128_ps(low, high, 0x20);
    const __m256 b = _mm256_permute2f128_ps(low, high, 0x31);
    _mm256_storeu_ps(at, _mm256_fmadd_ps(a, f, _mm256_loadu_ps(at)));
    _mm256_storeu_ps(at + LANES, _mm256_fmadd_ps(b, f, _mm256_loadu_ps(at + LANES)));
}

/* Two keys at a time: 32-bit lanes hold one dim of both. */
INLINE void mix_codes(const cpu_few_call *call, int32_t segment, const weights *w, float *o,
                      cpu_few_fetcher *f, const int n, const int bits)
{
    const kern_segment *g = &call->side->segments[segment];
    const int32_t row_bytes = g->n_dims / 8 * bits;
    const unpacker u = unpacker_of(&call->plan->segments[segment], bits);

    for (int32_t d = 0; d < g->n_dims; d += 16) {
        const uint8_t *p = call->head_page + g->codes_offset + d / 8 * bits;
        __m256i low[CPU_FEW_PASS];
        __m256i high[CPU_FEW_PASS];
        for (int r = 0; r < n; r++) {
            low[r] = _mm256_set1_epi32(-w->half_bias[r]);
            high[r] = low[r];
        }
        for (int32_t j = 0; j < KEYS; j += 2, p += 2 * row_bytes) {
            const __m256i x = unpack(&u, p, bits);
            const __m256i y = unpack(&u, p + row_bytes, bits);
            const __m256i xy_low = _mm256_unpacklo_epi16(x, y);
            const __m256i xy_high = _mm256_unpackhi_epi16(x, y);
            if (j % SLICE == 0) {
                cpu_few_fetch(f);
            }
            for (int r = 0; r < n; r++) {
                int32_t pair;
                memcpy(&pair, w->whole[r] + j, sizeof pair);
                const __m256i v = _mm256_set1_epi32(pair);
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(xy_low, v));
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(xy_high, v));
            }
        }
        for (int r = 0; r < n; r++) {
            add_dims(o + (int64_t)r * call->head_dim + g->first_dim + d, _mm256_cvtepi32_ps(low[r]),
                     _mm256_cvtepi32_ps(high[r]), w->scale[r]);
        }
    }
}

INLINE void mix_values(const cpu_few_call *call, int32_t segment, weights *w, float *o,
                       cpu_few_fetcher *f, const int n)
{
    const kern_segment *g = &call->side->segments[segment];

    for (int32_t j = 0; j < KEYS; j += SLICE) {
        expand_rows(call, segment, j, w->values);
        for (int32_t d = 0; d < g->n_dims; d += 2 * LANES) {
            float *out = o + g->first_dim + d;
            const float *v = w->values + d;
            __m256 low[CPU_FEW_PASS];
            __m256 high[CPU_FEW_PASS];
            for (int r = 0; r < n; r++) {
                low[r] = _mm256_loadu_ps(out + (int64_t)r * call->head_dim);
                high[r] = _mm256_loadu_ps(out + (int64_t)r * call->head_dim + LANES);
            }
            cpu_few_fetch(f);
            for (int32_t k = 0; k < SLICE; k++, v += g->n_dims) {
                const __m256 a = _mm256_loadu_ps(v);
                const __m256 b = _mm256_loadu_ps(v + LANES);
                for (int r = 0; r < n; r++) {
                    const __m256 p = _mm256_set1_ps(w->real[r][j + k]);
                    low[r] = _mm256_fmadd_ps(p, a, low[r]);
                    high[r] = _mm256_fmadd_ps(p, b, high[r]);
                }
            }
            for (int r = 0; r < n; r++) {
                _mm256_storeu_ps(out + (int64_t)r * call->head_dim, low[r]);
                _mm256_storeu_ps(out + (int64_t)r * call->head_dim + LANES, high[r]);
            }
        }
    }
}

INLINE void mix_bf16(const cpu_few_call *call, int32_t segment, const float *p, float *o,
                     cpu_few_fetcher *f, const int n)
{
    const kern_segment *g = &call->side->segments[segment];
    const int32_t row_bytes = 2 * g->n_dims;

    for (int32_t d = 0; d < g->n_dims; d += 2 * LANES) {
        const uint8_t *v = call->head_page + g->codes_offset + 2 * d;
        __m256 even[CPU_FEW_PASS];
        __m256 odd[CPU_FEW_PASS];
        for (int r = 0; r < n; r++) {
            even[r] = _mm256_setzero_ps();
            odd[r] = _mm256_setzero_ps();
        }
        for (int32_t j = 0; j < KEYS;) {
            cpu_few_fetch(f);
            for (const int32_t end = j + SLICE; j < end; j++, v += row_bytes) {
                const __m256i x = load_i(v);
                const __m256 a = even_of(x);
                const __m256 b = odd_of(x);
                for (int r = 0; r < n; r++) {
                    const __m256 w = _mm256_set1_ps(p[r * KEYS + j]);
                    even[r] = _mm256_fmadd_ps(w, a, even[r]);
                    odd[r] = _mm256_fmadd_ps(w, b, odd[r]);
                }
            }
        }
        for (int r = 0; r < n; r++) {
            add_dims(o + (int64_t)r * call->head_dim + g->first_dim + d,
                     _mm256_unpacklo_ps(even[r], odd[r]), _mm256_unpackhi_ps(even[r], odd[r]),
                     1.0f);
        }
    }
}

#include "kernels/cpu/cpu_few_frame.inc"

const cpu_few_path cpu_few_avx2 = {top_of, dot, mix};

#else
typedef int cpu_few_avx2_is_not_for_this_machine;
#endif
