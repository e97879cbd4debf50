/* kernels/cpu/cpu_page.h - page bytes of one side of one head, read and written (page.h). */
#ifndef KERNELS_CPU_CPU_PAGE_H
#define KERNELS_CPU_CPU_PAGE_H

#include "kernels/page.h"

#include <stdint.h>

/* values_out [128][head_dim] f32. */
void cpu_side_decode(const kern_side *side, int32_t head_dim, const uint8_t *head_page,
                     int32_t head_page_bytes, float *values_out);

/* rows [128][head_dim] bf16 bits -> codes and metadata (op_pack.h); nothing else is written. */
void cpu_side_encode(const kern_side *side, int32_t head_dim, const uint16_t *rows,
                     uint8_t *head_page);

#endif /* KERNELS_CPU_CPU_PAGE_H */
