/* A group of 8 bf16 or f32 values fills a register, 16 levels of 16 bits too.
 *
 * dot  Segment after segment, all keys of each.  Codes: cpu_few_keys.inc.  bf16: eight sums of (key, row) in
 *      registers, their lanes summed for 32 keys at a time.
 * mix  Segments have dims of their own: sums over keys of 16 dims and up to four rows stay in registers. */
#if defined(__x86_64__)

#include "kernels/cpu/cpu_few_ops_avx2.h"

#include <math.h>
#include <string.h>

#define KEYS      KERN_BLOCK_TOKENS
#define SUMS      8  /* in flight: rows times keys of a dot product */
#define CHUNK     32 /* keys of a dot product whose lanes are summed together */
#define SLICE     16 /* keys whose wide codes are values at a time */
#define UNROLLED  8  /* keys of a turn over codes */
#define MIX_TURNS (KEYS / SLICE)

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

INLINE int32_t sum_of_lanes(__m256i v)
{
    const __m128i two = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i four = _mm_add_epi32(two, _mm_shuffle_epi32(two, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

/* The sum of n whole numbers, a multiple of 16. */
INLINE int32_t sum_row(const int16_t *x, int32_t n)
{
    __m256i sum = _mm256_setzero_si256();
    for (int32_t i = 0; i < n; i += 2 * LANES) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(load_i(x + i), _mm256_set1_epi16(1)));
    }
    return sum_of_lanes(sum);
}

/* out = round(x * factor), n a multiple of 16. */
INLINE void round_row(const float *x, int32_t n, float factor, int16_t *out)
{
    const __m256 f = _mm256_set1_ps(factor);
    for (int32_t i = 0; i < n; i += 2 * LANES) {
        const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), f));
        const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + LANES), f));
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
        _mm256_storeu_si256((__m256i *)(void *)(out + i), packed);
    }
}

/* How 16 codes of 5 or 6 bits become centroids.  A byte shuffle looks up eight 16-bit entries; the index counts down by
 * one table a step and looks up 0 once it is negative, so entries are kept as differences (xor) to those of the
 * table before, and what all steps give adds up to the entry. */
typedef struct expander {
    __m256i bytes; /* the two bytes that hold code i, eight codes to a half of the register */
    __m256i shift; /* times a power of two: the code's top bit becomes the lane's */
    __m256i tables[2][4]; /* low and high halves of centroids */
} expander;

#define N_TABLES(bits) (1 << ((bits)-4))

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
            const __m256i low = twice_128(plan->planes[2 * half] + k / 2 * 16);
            const __m256i high = twice_128(plan->planes[2 * half + 1] + k / 2 * 16);
            e.tables[half][k] =
                k % 2 == 0 ? _mm256_unpacklo_epi8(low, high) : _mm256_unpackhi_epi8(low, high);
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

typedef struct queries {                                /* of one pass, in steps of their row */
    int32_t pairs[CPU_FEW_PASS][KERN_MAX_HEAD_DIM / 2]; /* of dims, as pair_up says */
    _Alignas(32) float real[CPU_FEW_PASS]
                           [KERN_MAX_HEAD_DIM]; /* bf16 segments: even, then odd dims of 16 */
    int32_t half_bias[CPU_FEW_PASS][KERN_MAX_SEGMENTS]; /* half of bias * sum of whole numbers */
    float step[CPU_FEW_PASS];
    _Alignas(32) float sums[CHUNK * CPU_FEW_PASS][LANES]; /* [key][row] */
} queries;

#include "kernels/cpu/cpu_few_keys.inc"

/* Even, then odd dims of 16. */
INLINE void split_real(__m256 a, __m256 b, float *out)
{
    const __m256i evens = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    const __m256i odds = _mm256_add_epi32(evens, _mm256_set1_epi32(1));
    const __m256 a_even = _mm256_permutevar8x32_ps(a, evens);
    const __m256 b_even = _mm256_permutevar8x32_ps(b, evens);
    const __m256 a_odd = _mm256_permutevar8x32_ps(a, odds);
    const __m256 b_odd = _mm256_permutevar8x32_ps(b, odds);
    _mm256_store_ps(out, _mm256_blend_ps(a_even, b_even, 0xf0));
    _mm256_store_ps(out + LANES, _mm256_blend_ps(a_odd, b_odd, 0xf0));
}

INLINE void load_queries(const cpu_few_call *call, const float *q, queries *x, const int n)
{
    int16_t whole[KERN_MAX_HEAD_DIM];
    for (int r = 0; r < n; r++) {
        const float *row = q + (int64_t)r * call->head_dim;
        x->step[r] = step_of(top_of(row, call->head_dim));
        const float factor = 1.0f / x->step[r];
        round_row(row, call->head_dim, factor, whole);
        pair_up(whole, call->head_dim, x->pairs[r]);
        for (int32_t i = 0; i < call->side->n_segments; i++) {
            const kern_segment *g = &call->side->segments[i];
            const int32_t d = g->first_dim;
            if (g->bits <= CPU_FEW_LEVELS) {
                const int32_t sum = sum_row(whole + d, g->n_dims);
                x->half_bias[r][i] = sum * call->plan->segments[i].bias / 2;
                continue;
            }
            for (int32_t k = d; k < d + g->n_dims; k += 2 * LANES) {
                const __m256 a = times(_mm256_loadu_ps(row + k), factor);
                const __m256 b = times(_mm256_loadu_ps(row + k + LANES), factor);
                if (g->bits == 16) {
                    split_real(a, b, x->real[r] + k);
                } else {
                    _mm256_store_ps(x->real[r] + k, a);
                    _mm256_store_ps(x->real[r] + k + LANES, b);
                }
            }
        }
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

/* A chunk's sums to the rows of s. */
INLINE void put_chunk(const queries *x, float *s, bool add, const int n)
{
    for (int r = 0; r < n; r++) {
        for (int32_t k = 0; k < CHUNK; k += LANES) {
            const __m256 sums = lane_sums(x->sums[k * n + r], n * LANES);
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
        for (int i = 0; i < SUMS; i++) {
            _mm256_store_ps(x->sums[j % CHUNK * n + i], sums[i]);
        }
        if ((j + keys) % CHUNK == 0) {
            put_chunk(x, s + j + keys - CHUNK, segment > 0, n);
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

INLINE void load_norms(const kern_segment *g, const uint8_t *head_page, float *out)
{
    for (int32_t j = 0; j < KEYS; j += LANES) {
        _mm256_storeu_ps(out + j, load_halves(head_page + g->norms_offset + 2 * j));
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
            _mm256_store_ps(w->real[r] + j, _mm256_mul_ps(_mm256_loadu_ps(p + r * KEYS + j),
                                                          _mm256_loadu_ps(w->norms + j)));
        }
        if (g->bits <= CPU_FEW_LEVELS) {
            const float step = step_of(top_of(w->real[r], KEYS));
            round_row(w->real[r], KEYS, 1.0f / step, w->whole[r]);
            w->half_bias[r] = sum_row(w->whole[r], KEYS) * plan->bias / 2;
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

/* How 16 codes of two keys, 2 b bytes of each, become levels: a 32-bit lane gets two neighbours of both keys. */
typedef struct pair_unpacker {
    __m256i bytes; /* to a key's half of a lane */
    __m256i align; /* 1..3 bits: the codes' top bit becomes the half's */
    __m256i levels[2];
} pair_unpacker;

INLINE pair_unpacker pair_unpacker_of(const cpu_few_segment *plan, int bits)
{
    uint8_t bytes[32];
    uint16_t align[16];
    pair_unpacker u;
    for (int i = 0; i < 16; i++) {
        const int at = i / 2 * 2 * bits;
        bytes[2 * i] = (uint8_t)(i % 2 * 8 + at / 8);
        bytes[2 * i + 1] = (uint8_t)(bits == 4 ? 0x80 : bytes[2 * i] + 1);
        align[i] = (uint16_t)(1u << (16 - 2 * bits - at % 8));
    }
    memcpy(&u.bytes, bytes, sizeof bytes);
    memcpy(&u.align, align, sizeof align);
    u.levels[0] = quarters_of(plan->levels[0]);
    u.levels[1] = quarters_of(plan->levels[bits <= 2 ? 1 : 0]);
    return u;
}

/* Two keys' codes in halves of lanes; of 1..3 bits at the top. */
INLINE __m256i load_pair(const pair_unpacker *u, const uint8_t *p, int32_t row_bytes,
                         const int bits)
{
    int64_t words[2];
    memcpy(&words[0], p, sizeof words[0]);
    memcpy(&words[1], p + row_bytes, sizeof words[1]);
    const __m256i both =
        _mm256_blend_epi32(_mm256_set1_epi64x(words[0]), _mm256_set1_epi64x(words[1]), 0xcc);
    const __m256i x = shuffle(both, u->bytes);
    return bits == 4 ? x : low_products(x, u->align);
}

/* 32-bit lanes of *even and *odd: the level of one dim of both keys. */
INLINE void look_up_pair(const pair_unpacker *u, __m256i codes, const int bits, __m256i *even,
                         __m256i *odd)
{
    const __m256i x = bits == 4 ? both_of(codes, _mm256_set1_epi16(0x0f))
                                : shift_right(codes, 16 - 2 * bits); /* four bits count */
    *even = shuffle(u->levels[0], x);
    *odd = shuffle(u->levels[1], bits == 4   ? shift_right(codes, 4)
                                 : bits == 3 ? shift_right(codes, 16 - bits)
                                             : x);
}

INLINE __m256i pair_to_all(const int16_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
}

INLINE void mix_codes(const cpu_few_call *call, int32_t segment, const weights *w, float *o,
                      cpu_few_fetcher *f, const int n, const int bits)
{
    const kern_segment *g = &call->side->segments[segment];
    const int32_t row_bytes = g->n_dims / 8 * bits;
    const pair_unpacker u = pair_unpacker_of(&call->plan->segments[segment], bits);

    for (int32_t d = 0; d < g->n_dims; d += 16) {
        const uint8_t *p = call->head_page + g->codes_offset + d / 8 * bits;
        __m256i even[CPU_FEW_PASS];
        __m256i odd[CPU_FEW_PASS];
        for (int r = 0; r < n; r++) {
            even[r] = all_of(-w->half_bias[r]);
            odd[r] = even[r];
        }
        __m256i next = load_pair(&u, p, row_bytes, bits);
        for (int32_t j = 0; j < KEYS; j += UNROLLED) {
            if (j % SLICE == 0) {
                cpu_few_fetch(f);
            }
            for (int k = 0; k < UNROLLED; k += 2) {
                __m256i a, b;
                const __m256i codes = next;
                p += k + 2 < UNROLLED || j + UNROLLED < KEYS ? 2 * row_bytes : 0;
                next = load_pair(&u, p, row_bytes, bits);
                look_up_pair(&u, codes, bits, &a, &b);
                for (int r = 0; r < n; r++) {
                    const __m256i v = pair_to_all(w->whole[r] + j + k);
                    even[r] = add_products(even[r], a, v);
                    odd[r] = add_products(odd[r], b, v);
                }
            }
        }
        for (int r = 0; r < n; r++) {
            const __m256 a = reals_of(even[r]);
            const __m256 b = reals_of(odd[r]);
            add_dims(o + (int64_t)r * call->head_dim + g->first_dim + d, _mm256_unpacklo_ps(a, b),
                     _mm256_unpackhi_ps(a, b), w->scale[r]);
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
