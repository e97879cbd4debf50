/* Every position has a scale and a min for each of its channels; which of them are the same is the only
 * difference between the two kinds.  The writer's arithmetic is scalar f32 in an order that does not matter
 * (minima and maxima), so its bytes are the same everywhere. */
#include "kernels/cpu/cpu_affine.h"

#include "base/half.h"
#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_vec.h"

#include <math.h>
#include <stdbool.h>

#define LARGEST_F16 65504.0f
#define MINUS_ZERO  0x8000u
#define CODES       8 /* of one word */
#define ROUND_MAGIC \
    0x1.8p23f /* adding it rounds to an integer, half to even, left in the low bits */

typedef int32_t signed_lanes __attribute__((vector_size(32)));

typedef struct row_pairs { /* of one position, for each of its channels */
    float scales[KERN_MAX_HEAD_DIM];
    float minima[KERN_MAX_HEAD_DIM];
} row_pairs;

/* NaN stays NaN. */
static inline float saturated(uint16_t bf16)
{
    const float x = base_f32_from_bf16(bf16);
    return x > LARGEST_F16 ? LARGEST_F16 : x < -LARGEST_F16 ? -LARGEST_F16 : x;
}

static float fp16_at(const uint8_t *section, int32_t index)
{
    uint16_t bits;
    memcpy(&bits, section + (int64_t)index * 2, sizeof bits);
    return base_f32_from_f16(bits);
}

/* Index of the first pair of a position, and how many channels share a pair. */
static int32_t first_pair(const kern_segment *g, int32_t position)
{
    return g->kind == KERN_AFFINE_CHANNEL ? position / g->group * g->n_dims
                                          : position * (g->n_dims / g->group);
}

static int32_t channels_of_pair(const kern_segment *g)
{
    return g->kind == KERN_AFFINE_CHANNEL ? 1 : g->group;
}

/* Does a position have other pairs than the one before it? */
static bool begins_pairs(const kern_segment *g, int32_t position)
{
    return g->kind == KERN_AFFINE_POSITION || position % g->group == 0;
}

static void load_pairs(const kern_segment *g, const uint8_t *head_page, int32_t position,
                       row_pairs *out)
{
    const int32_t first = first_pair(g, position);
    const int32_t width = channels_of_pair(g);
    for (int32_t d = 0; d < g->n_dims; d += width) {
        const float scale = fp16_at(head_page + g->scales_offset, first + d / width);
        const float min = fp16_at(head_page + g->minima_offset, first + d / width);
        for (int32_t i = d; i < d + width; i++) {
            out->scales[i] = scale;
            out->minima[i] = min;
        }
    }
}

/* ---- writing ---- */

/* The pair of a group whose values lie in low..high; low > high: it has none. */
static void store_pair(const kern_segment *g, uint8_t *head_page, int32_t index, float low,
                       float high)
{
    const float levels = (float)((1 << g->bits) - 1);
    const bool empty = low > high;
    const uint16_t scale = empty ? 0 : base_f16_from_f32((high - low) / levels);
    uint16_t min = empty ? 0 : base_f16_from_f32(low);
    min = min == MINUS_ZERO ? 0 : min;
    memcpy(head_page + g->scales_offset + (int64_t)index * 2, &scale, sizeof scale);
    memcpy(head_page + g->minima_offset + (int64_t)index * 2, &min, sizeof min);
}

/* The pairs of a position and of those that share them. */
static void measure(const kern_segment *g, const uint16_t *rows, int64_t row_stride,
                    int32_t position, uint8_t *head_page)
{
    const int32_t n_rows = g->kind == KERN_AFFINE_CHANNEL ? g->group : 1;
    const int32_t width = channels_of_pair(g);
    float low[KERN_MAX_HEAD_DIM];
    float high[KERN_MAX_HEAD_DIM];

    for (int32_t d = 0; d < g->n_dims; d++) {
        low[d] = INFINITY;
        high[d] = -INFINITY;
    }
    for (int32_t j = position; j < position + n_rows; j++) {
        for (int32_t d = 0; d < g->n_dims; d++) { /* comparisons with NaN are false */
            const float x = saturated(rows[j * row_stride + d]);
            low[d] = x < low[d] ? x : low[d];
            high[d] = x > high[d] ? x : high[d];
        }
    }
    for (int32_t d = 0; d < g->n_dims; d += width) {
        for (int32_t i = d + 1; i < d + width; i++) {
            low[d] = low[i] < low[d] ? low[i] : low[d];
            high[d] = high[i] > high[d] ? high[i] : high[d];
        }
        store_pair(g, head_page, first_pair(g, position) + d / width, low[d], high[d]);
    }
}

static void write_row(const kern_segment *g, const uint16_t *row, const row_pairs *pairs,
                      uint8_t *codes)
{
    const float top = (float)((1 << g->bits) - 1);
    uint8_t code[KERN_MAX_HEAD_DIM];

    for (int32_t d = 0; d < g->n_dims; d++) {
        const float scale = pairs->scales[d];
        const float x = (saturated(row[d]) - pairs->minima[d]) / (scale == 0.0f ? 1.0f : scale);
        const float positive = x > 0.0f ? x : 0.0f; /* NaN too */
        const float clamped = positive < top ? positive : top;
        code[d] = (uint8_t)(base_f32_bits((scale == 0.0f ? 0.0f : clamped) + ROUND_MAGIC) & 0xffu);
    }
    for (int32_t d = 0; d < g->n_dims; d += CODES, codes += g->bits) {
        uint64_t word = 0;
        for (int32_t i = 0; i < CODES; i++) {
            word |= (uint64_t)code[d + i] << (g->bits * i);
        }
        memcpy(codes, &word, (size_t)g->bits); /* little-endian, see cpu_page_read.c */
    }
}

void cpu_affine_encode(const kern_segment *segment, const uint16_t *rows, int64_t row_stride,
                       uint8_t *head_page)
{
    const int32_t row_bytes = segment->n_dims / CODES * segment->bits;
    row_pairs pairs;

    for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
        if (begins_pairs(segment, j)) {
            measure(segment, rows, row_stride, j, head_page);
            load_pairs(segment, head_page, j, &pairs); /* as stored: rounded to fp16 */
        }
        write_row(segment, rows + j * row_stride, &pairs,
                  head_page + segment->codes_offset + (int64_t)j * row_bytes);
    }
}

/* ---- reading ---- */

CPU_INLINE void read_rows(const kern_segment *g, const uint8_t *head_page, int64_t row_stride,
                          float *out, const int bits)
{
    const uint32_t b = (uint32_t)bits;
    const uint32_t mask = (1u << b) - 1u;
    const cpu_u8 shift = {0, b, 2 * b, 3 * b, 0, b, 2 * b, 3 * b};
    const uint8_t *p = head_page + g->codes_offset;
    row_pairs pairs;

    for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
        if (begins_pairs(g, j)) {
            load_pairs(g, head_page, j, &pairs);
        }
        for (int32_t d = 0; d < g->n_dims; d += CPU_LANES, p += bits) {
            uint64_t word = 0;
            memcpy(&word, p, (size_t)bits);
            const uint32_t lo = (uint32_t)word;
            const uint32_t hi = (uint32_t)(word >> (4 * b));
            const cpu_u8 halves = {lo, lo, lo, lo, hi, hi, hi, hi};
            const signed_lanes code = (signed_lanes)((halves >> shift) & mask);
            const cpu_f8 steps = __builtin_convertvector(code, cpu_f8);
            cpu_f8_store(out + j * row_stride + d,
                         cpu_f8_load(pairs.minima + d) + cpu_f8_load(pairs.scales + d) * steps);
        }
    }
}

CPU_CLONES void cpu_affine_decode(const kern_segment *segment, const uint8_t *head_page,
                                  int64_t row_stride, float *values_out)
{
    switch (segment->bits) {
    case 2: read_rows(segment, head_page, row_stride, values_out, 2); break;
    case 4: read_rows(segment, head_page, row_stride, values_out, 4); break;
    default: read_rows(segment, head_page, row_stride, values_out, 8); break;
    }
}
