/* kernels/format_check.h - the limits of page.h, for the front doors of ops that take formats. */
#ifndef KERNELS_FORMAT_CHECK_H
#define KERNELS_FORMAT_CHECK_H

#include "base/status.h"
#include "kernels/page.h"

#include <stdint.h>

/* Head formats [n_kv_heads] for heads of head_dim (64 or 128), without their page bytes: segments,
 * signs.  op names the caller in errors.  Errors: BAD_INPUT. */
BASE_MUST_CHECK base_status kern_formats_check(const char *op, const kern_head_format *formats,
                                               int32_t n_kv_heads, int32_t head_dim);

/* Also their place in a block's page of page_stride bytes, offsets, codebooks. */
BASE_MUST_CHECK base_status kern_formats_check_pages(const char *op,
                                                     const kern_head_format *formats,
                                                     int32_t n_kv_heads, int32_t head_dim,
                                                     int64_t page_stride);

#endif /* KERNELS_FORMAT_CHECK_H */
