/* kernels/cuda/format_image.h - head formats as one block of bytes whose pointers are device addresses.
 *
 * First the structs [n_heads], then what they point to: codebooks, signs, orders. */
#ifndef KERNELS_CUDA_FORMAT_IMAGE_H
#define KERNELS_CUDA_FORMAT_IMAGE_H

#include "kernels/page.h"

#include <stddef.h>
#include <stdint.h>

size_t cuda_format_image_bytes(const kern_head_format *formats, int32_t n_heads);

/* The block that will lie at device. */
void cuda_format_image(const kern_head_format *formats, int32_t n_heads, const char *device,
                       void *image_out);

#endif /* KERNELS_CUDA_FORMAT_IMAGE_H */
