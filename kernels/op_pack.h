/* kernels/op_pack.h - the page writer: full blocks of bf16 rows become page bytes of one layer.
 *
 * For each pack p: the 128 rows of opens[p.open] are encoded into the head pages
 *   pages + p.page * page_stride + formats[h].offset,   h = 0 .. Hkv-1.
 * Encoding of one row of one codebook segment (TurboQuant-MSE, arXiv 2504.19874, Algorithm 1, with
 * norm correction): nu = sqrt(sum x^2); u = x / nu; code = how many thresholds are < u;
 * n = sqrt(sum centroids[code]^2); norm = fp16(nu / n).  nu <= 1e-10 gives norm 0 and the codes of u = 0.
 * KERN_PLAIN: the bf16 bits as they are.
 *
 * Encoding of one group of an affine segment (KIVI, arXiv 2402.02750), Q = 2^bits - 1, all in f32: x is saturated
 * to +-65504; min and max are over the values that are not NaN (0 if there are none); scale = fp16((max - min) /
 * Q); min is stored as fp16, -0 as 0; code = round half to even of (x - min) / scale, clamped to 0..Q, from the
 * STORED scale and min.  Scale 0 and NaN give code 0: a NaN becomes the min of its group and reaches no other
 * value.  bf16 fits fp16 but for magnitudes below 2^-17, so |x - value| <= scale / 2 * (1 + 2^-9) as long as the
 * scale is a normal fp16 (>= 2^-14) and nothing was saturated.
 *
 * Numerics.  The bytes are a function of the bf16 rows alone, the same on every backend: f32 sums
 *            in ascending order of dims, IEEE sqrt and division, no contraction.  NaN or infinity in a row: the
 *            norm is 0 for NaN sums and the largest finite fp16 for overflow; other rows are untouched by it.
 * Limits.    D 64 or 128; n_packs >= 0; padding bytes between sections are written as 0.
 * Aliasing.  pages and rows do not overlap.
 * Errors.    BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_PACK_H
#define KERNELS_OP_PACK_H

#include "base/status.h"
#include "kernels/page.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_pack { /* one block that this step filled */
    int32_t open;          /* index into opens */
    int32_t page;          /* index into the pool's pages */
} kern_pack;

typedef struct kern_pack_args {
    const kern_pack *packs;          /* [n_packs] */
    const kern_open *opens;          /* [n_opens] */
    const kern_head_format *formats; /* [Hkv] of this layer */
    uint8_t *pages;                  /* [n_pages][page_stride] */
    int64_t page_stride;             /* bytes of a block's page */
    int32_t n_packs;
    int32_t n_opens;
    int32_t n_pages;
    int32_t n_kv_heads;
} kern_pack_args;

BASE_MUST_CHECK base_status kern_pack_pages(struct kern_ctx *ctx, const kern_pack_args *args);

/* Decodes one side (0 = K, 1 = V) of one head page to values [128][D] f32, page basis: what attention
 * sees.  For tests, tools and references; any thread. */
void kern_page_decode(const kern_head_format *format, const uint8_t *head_page, int32_t side,
                      float *values_out);

#endif /* KERNELS_OP_PACK_H */
