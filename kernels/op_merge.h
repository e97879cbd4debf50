/* kernels/op_merge.h - merges the partials of all ranks by log-sum-exp.
 *
 *   m = max_r lse_r;  w_r = exp(lse_r - m);  o = sum_r w_r o_r / sum_r w_r;  lse = m + log sum_r w_r
 *
 *   partials  rank r at partials + r * rank_stride:  o_r [rows, D] f32, then lse_r [rows] f32
 *   o         [rows, D]  f32; with formats it leaves V's page basis, as by the inverse of op_basis.h, where
 *                        row t * H + h is head h of token t
 *   lse       [rows]     f32, or NULL
 *   formats   [Hkv]      of the layer, or NULL
 *
 * A rank with lse = -inf adds nothing, whatever its o holds; if all are -inf: o = 0, lse = -inf.  NaN in any
 * contributing rank gives the canonical NaN.  Ranks are added in rank order: bit-equal on every rank and run.
 * Source.    Milakov and Gimelshein, arXiv 1805.02867; Dao et al., FlashAttention.
 * Aliasing.  o may be the o of rank 0.
 * Limits.    1 <= n_ranks, rows >= 0, D >= 1; with formats D 64 or 128, rows = T * H, H a multiple of Hkv.
 * Errors.    BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_MERGE_H
#define KERNELS_OP_MERGE_H

#include "base/status.h"
#include "kernels/page.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_merge_args {
    const float *partials;
    int64_t rank_stride; /* elements, >= rows * (D + 1) */
    float *o;
    float *lse;
    int32_t n_ranks;
    int32_t rows; /* T * H */
    int32_t head_dim;
    const kern_head_format *formats;
    int32_t n_heads; /* these two with formats */
    int32_t n_kv_heads;
} kern_merge_args;

BASE_MUST_CHECK base_status kern_merge(struct kern_ctx *ctx, const kern_merge_args *args);

#endif /* KERNELS_OP_MERGE_H */
