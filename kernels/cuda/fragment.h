/* kernels/cuda/fragment.h - head pages between plain order (page.h) and CUDA fragment order
 * (fragment_order.h): a permutation of the bits of each section, in place in the page.
 *
 * For what leaves or enters GPU memory (snapshots, the wire) and for tests.  Host only, any thread.
 * Limits.  Segments are multiples of 16 dims; affine ones are a whole side of 64 or 128, K by channel or V by
 * position, and the other side is affine or bf16; from and to do not overlap; head_page_bytes are written. */
#ifndef KERNELS_CUDA_FRAGMENT_H
#define KERNELS_CUDA_FRAGMENT_H

#include "kernels/page.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the GPU can hold heads of this format. */
bool kern_fragment_fits(const kern_head_format *format);

/* Of one that fits: whether a side is affine. */
bool kern_fragment_is_affine(const kern_head_format *format);

void kern_fragment_from_plain(const kern_head_format *format, const uint8_t *from, uint8_t *to);
void kern_fragment_to_plain(const kern_head_format *format, const uint8_t *from, uint8_t *to);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_FRAGMENT_H */
