/* Eight codes of b bits are b bytes: one unaligned load, one shift per lane, one table look-up. */
#include "kernels/cpu/cpu_affine.h"
#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_page.h"
#include "kernels/cpu/cpu_vec.h"
#include "kernels/op_pack.h"

#include <stdbool.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "codes are read as little-endian words");

/* Bytes that a load of eight codes may touch. */
#define WORD_BYTES 8

typedef struct read_table {
    const float *centroids;
    cpu_f8 low;  /* levels 0..7, the rest 0 */
    cpu_f8 high; /* levels 8..15 */
} read_table;

CPU_INLINE cpu_f8 look_up(const read_table *t, cpu_u8 code, int bits)
{
#if !defined(__clang__) /* clang 14 has no shuffle with a variable mask */
    if (bits <= 3) {
        return __builtin_shuffle(t->low, code);
    }
    if (bits == 4) {
        const cpu_u8 is_high = (cpu_u8)(code > 7u);
        return cpu_f8_select(is_high, __builtin_shuffle(t->high, code),
                             __builtin_shuffle(t->low, code));
    }
#endif
    (void)bits;
    cpu_f8 v;
    for (int i = 0; i < CPU_LANES; i++) {
        v[i] = t->centroids[code[i]];
    }
    return v;
}

/* One position: n_dims codes at p, at least n_dims * bits / 8 + WORD_BYTES readable bytes. */
CPU_INLINE void read_row(const read_table *t, const uint8_t *p, int32_t n_dims, float norm,
                         float *out, int bits)
{
    const uint32_t b = (uint32_t)bits;
    const uint32_t mask = (1u << b) - 1u;
    const cpu_u8 shift = {0, b, 2 * b, 3 * b, 0, b, 2 * b, 3 * b};

    for (int32_t d = 0; d < n_dims; d += CPU_LANES, p += bits) {
        uint64_t word;
        memcpy(&word, p, WORD_BYTES);
        const uint32_t lo = (uint32_t)word;
        const uint32_t hi = (uint32_t)(word >> (4 * b));
        const cpu_u8 halves = {lo, lo, lo, lo, hi, hi, hi, hi};
        const cpu_u8 code = (halves >> shift) & mask;
        cpu_f8_store(out + d, look_up(t, code, bits) * norm);
    }
}

CPU_INLINE void read_codes(const kern_segment *g, int32_t head_dim, const uint8_t *head_page,
                           int32_t head_page_bytes, float *out, int bits)
{
    const int32_t row_bytes = g->n_dims / CPU_LANES * bits;
    const uint8_t *codes = head_page + g->codes_offset;
    const uint8_t *norms = head_page + g->norms_offset;
    read_table t = {.centroids = g->centroids};
    uint8_t last[KERN_MAX_HEAD_DIM + WORD_BYTES] = {0};

    for (int i = 0; i < 16 && i < 1 << bits; i++) {
        if (i < CPU_LANES) {
            t.low[i] = g->centroids[i];
        } else {
            t.high[i - CPU_LANES] = g->centroids[i];
        }
    }
    /* The last load may reach past the section; it must not reach past the page. */
    const bool roomy =
        g->codes_offset + KERN_BLOCK_TOKENS * row_bytes + WORD_BYTES <= head_page_bytes;
    for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
        const uint8_t *row = codes + (int64_t)j * row_bytes;
        uint16_t norm;
        memcpy(&norm, norms + (int64_t)j * 2, sizeof norm);
        if (j == KERN_BLOCK_TOKENS - 1 && !roomy) {
            memcpy(last, row, (size_t)row_bytes);
            row = last;
        }
        read_row(&t, row, g->n_dims, base_f32_from_f16(norm), out + (int64_t)j * head_dim, bits);
    }
}

CPU_INLINE void read_plain(const kern_segment *g, int32_t head_dim, const uint8_t *head_page,
                           float *out)
{
    const uint8_t *codes = head_page + g->codes_offset;
    for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
        for (int32_t d = 0; d < g->n_dims; d += CPU_LANES) {
            uint16_t bits[CPU_LANES];
            memcpy(bits, codes + ((int64_t)j * g->n_dims + d) * 2, sizeof bits);
            cpu_f8_store(out + (int64_t)j * head_dim + d, cpu_f8_from_bf16(bits));
        }
    }
}

CPU_CLONES void cpu_side_decode(const kern_side *side, int32_t head_dim, const uint8_t *head_page,
                                int32_t head_page_bytes, float *values_out)
{
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        float *out = values_out + g->first_dim;
        if (kern_segment_is_affine(g)) {
            cpu_affine_decode(g, head_page, head_dim, out);
            continue;
        }
        switch (g->bits) {
        case 1: read_codes(g, head_dim, head_page, head_page_bytes, out, 1); break;
        case 2: read_codes(g, head_dim, head_page, head_page_bytes, out, 2); break;
        case 3: read_codes(g, head_dim, head_page, head_page_bytes, out, 3); break;
        case 4: read_codes(g, head_dim, head_page, head_page_bytes, out, 4); break;
        case 5: read_codes(g, head_dim, head_page, head_page_bytes, out, 5); break;
        case 6: read_codes(g, head_dim, head_page, head_page_bytes, out, 6); break;
        case 7: read_codes(g, head_dim, head_page, head_page_bytes, out, 7); break;
        case 8: read_codes(g, head_dim, head_page, head_page_bytes, out, 8); break;
        default: read_plain(g, head_dim, head_page, out); break;
        }
    }
}

void kern_page_decode(const kern_head_format *format, const uint8_t *head_page, int32_t side,
                      float *values_out)
{
    cpu_side_decode(side == 0 ? &format->k : &format->v, format->head_dim, head_page,
                    format->head_page_bytes, values_out);
}
