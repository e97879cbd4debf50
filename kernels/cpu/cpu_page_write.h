/* kernels/cpu/cpu_page_write.h - the codes and norms of one codebook segment of one head (op_pack.h).
 *
 *   rows  [128][stride] bf16 bits, the segment's first dim first
 * Every path writes the same bytes. */
#ifndef KERNELS_CPU_CPU_PAGE_WRITE_H
#define KERNELS_CPU_CPU_PAGE_WRITE_H

#include "base/half.h"
#include "kernels/cpu/cpu_isa.h"
#include "kernels/page.h"

#include <stdint.h>

#define CPU_PAGE_LARGEST_F16 0x7bffu

/* What stands in the page for a norm >= 0. */
static inline uint16_t cpu_page_norm(float norm)
{
    const uint16_t f16 = base_f16_from_f32(norm);
    return f16 > CPU_PAGE_LARGEST_F16 ? CPU_PAGE_LARGEST_F16 : f16;
}

void cpu_codes_encode(const kern_segment *g, const uint16_t *rows, int32_t stride, cpu_isa isa,
                      uint8_t *head_page);

#if defined(__x86_64__)
void cpu_codes_encode_avx2(const kern_segment *g, const uint16_t *rows, int32_t stride,
                           uint8_t *head_page);
#endif

#endif /* KERNELS_CPU_CPU_PAGE_WRITE_H */
