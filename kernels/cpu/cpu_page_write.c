/* The plain code defines the bytes, which are the contract: sums go in ascending order. */
#include "kernels/cpu/cpu_page_write.h"

#include "kernels/cpu/cpu_affine.h"
#include "kernels/cpu/cpu_page.h"

#include <math.h>
#include <string.h>

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
    return empty ? 0 : cpu_page_norm(nu / sqrtf(code_sum));
}

void cpu_codes_encode(const kern_segment *g, const uint16_t *rows, int32_t stride, cpu_isa isa,
                      uint8_t *head_page)
{
    const int32_t row_bytes = g->n_dims / 8 * g->bits;
#if defined(__x86_64__)
    if (isa != CPU_ISA_PLAIN) {
        cpu_codes_encode_avx2(g, rows, stride, head_page);
        return;
    }
#endif
    for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
        const uint16_t norm = write_row(g, rows + (int64_t)j * stride,
                                        head_page + g->codes_offset + (int64_t)j * row_bytes);
        memcpy(head_page + g->norms_offset + (int64_t)j * 2, &norm, sizeof norm);
    }
}

void cpu_side_encode(const kern_side *side, int32_t head_dim, const uint16_t *rows,
                     uint8_t *head_page)
{
    for (int32_t i = 0; i < side->n_segments; i++) {
        const kern_segment *g = &side->segments[i];
        if (g->kind == KERN_CODEBOOK) {
            cpu_codes_encode(g, rows + g->first_dim, head_dim, cpu_isa_of_machine(), head_page);
            continue;
        }
        if (kern_segment_is_affine(g)) {
            cpu_affine_encode(g, rows + g->first_dim, head_dim, head_page);
            continue;
        }
        const int32_t row_bytes = g->n_dims / 8 * g->bits;
        for (int32_t j = 0; j < KERN_BLOCK_TOKENS; j++) {
            const uint16_t *row = rows + (int64_t)j * head_dim + g->first_dim;
            memcpy(head_page + g->codes_offset + (int64_t)j * row_bytes, row, (size_t)row_bytes);
        }
    }
}
