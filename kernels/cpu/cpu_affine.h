/* kernels/cpu/cpu_affine.h - affine segments of a head page, read and written (page.h, op_pack.h). */
#ifndef KERNELS_CPU_CPU_AFFINE_H
#define KERNELS_CPU_CPU_AFFINE_H

#include "kernels/page.h"

#include <stdint.h>

/* rows: the segment's first dim of position 0, rows row_stride apart, bf16 bits -> codes, scales, minima. */
void cpu_affine_encode(const kern_segment *segment, const uint16_t *rows, int64_t row_stride,
                       uint8_t *head_page);

/* values_out: the same places, f32. */
void cpu_affine_decode(const kern_segment *segment, const uint8_t *head_page, int64_t row_stride,
                       float *values_out);

#endif /* KERNELS_CPU_CPU_AFFINE_H */
