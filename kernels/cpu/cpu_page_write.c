/* Plain scalar code on purpose: the bytes are the contract, and sums go in ascending order. */
#include "base/half.h"
#include "kernels/cpu/cpu_affine.h"
#include "kernels/cpu/cpu_page.h"

#include <math.h>
#include <string.h>

#define LARGEST_F16 0x7bffu

/* How many of the 2^bits - 1 thresholds are < u, without branches.  NaN gives 0. */
static inline uint32_t code_of(const float *thresholds, int32_t bits, float u)
{
    uint32_t code = 0;
    for (int32_t bit = bits - 1; bit >= 0; bit--) {
        const uint32_t step = 1u << bit;
        code += (uint32_t)(thresholds[code + step - 1] < u) << bit;
    }
    return code;
}

/* codes: the row's n_dims * bits / 8 bytes.  Returns the fp16 norm. */
static uint16_t write_row(const kern_segment *g, const uint16_t *row, uint8_t *codes)
{
    float u[KERN_MAX_HEAD_DIM];
    float sum = 0.0f;
    for (int32_t d = 0; d < g->n_dims; d++) {
        u[d] = base_f32_from_bf16(row[d]);
        sum += u[d] * u[d];
    }
    const float nu = sqrtf(sum);
    const int empty = !(nu > 1e-10f); /* true for NaN as well */

    for (int32_t d = 0; d < g->n_dims; d++) {
        u[d] = empty ? 0.0f : u[d] / nu;
    }

    float code_sum = 0.0f;
    for (int32_t d = 0; d < g->n_dims; d += 8) {
        uint64_t word = 0;
        for (int32_t i = 0; i < 8; i++) {
            const uint32_t code = code_of(g->thresholds, g->bits, u[d + i]);
            word |= (uint64_t)code << (g->bits * i);
            code_sum += g->centroids[code] * g->centroids[code];
        }
        memcpy(codes, &word, (size_t)g->bits); /* little-endian, see cpu_page_read.c */
        codes += g->bits;
    }
    if (empty) {
        return 0;
    }
    const uint16_t norm = base_f16_from_f32(nu / sqrtf(code_sum));
    return norm > LARGEST_F16 ? LARGEST_F16 : norm;
}

void cpu_side_encode(const kern_side *side, int32_t head_dim, const uint16_t *rows,
                     uint8_t *head_page)
{
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        const int32_t row_bytes = g->n_dims / 8 * g->bits;
        if (kern_segment_is_affine(g)) {
            cpu_affine_encode(g, rows + g->first_dim, head_dim, head_page);
            continue;
        }
        for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
            const uint16_t *row = rows + (int64_t)j * head_dim + g->first_dim;
            uint8_t *codes = head_page + g->codes_offset + (int64_t)j * row_bytes;
            if (g->kind == KERN_PLAIN) {
                memcpy(codes, row, (size_t)row_bytes);
            } else {
                const uint16_t norm = write_row(g, row, codes);
                memcpy(head_page + g->norms_offset + (int64_t)j * 2, &norm, sizeof norm);
            }
        }
    }
}
