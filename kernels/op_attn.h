/* kernels/op_attn.h - partial attention of a step's queries over this rank's positions.
 *
 * Query t of sequence s has position p = position + (t - first_token) and block b = p / 128.  Of the blocks
 * o <= b that this rank owns it sees, with W = window_blocks and S = sink_blocks,
 *   - as bf16 rows, from the entry of the sequence's opens: o == b, rows 0 .. p % 128;
 *     o < b with b - o <= W or o < S, all 128 rows;
 *   - as page bytes, from the entry of the sequence's pages: every other o < b, all 128 positions.
 * So what it sees depends on p alone, not on how tokens fell into steps.  Pages that every query sees as rows,
 * and opens that none sees, may be listed and are passed over.
 *
 *   x_j = scale * <q[t, h, :], K_j>                    over those positions j, KV head h / G
 *   lse[t, h] = log sum_j exp(x_j)                     natural log; -inf if there is no position
 *   o[t, h, :] = sum_j exp(x_j - lse) V_j              0 if there is no position
 *
 *   q     [T, H, D]  f32, K's page basis (op_basis.h)
 *   o     [T, H, D]  f32, V's page basis; with leaves_basis out of it, as by the inverse of op_basis.h
 *   lse   [T, H]     f32
 *   pages [n_pages_total][page_stride] bytes, as op_pack.h writes them
 *
 * Aliasing.   none.
 * Limits.     D 64 or 128; H = G * Hkv, G 1..16; pages of a sequence ascending by block; every token
 *             belongs to exactly one sequence; W and S 0..KERN_MAX_ROW_BLOCKS.
 * Numerics.   f32 accumulation.  Against fp64 attention on the dequantised values: |o - ref| <= 2e-4 *
 *             max|V| + 1e-6, |lse - ref| <= 1e-4 + 1e-6 |ref|.  Up to 16 query rows over codes of 1..4 bits
 *             round queries and weights to 16 bits and sum integers: x_j may be off by 2e-5 * scale |q||K_j|,
 *             over affine pages also by 2e-4 * scale times the largest |q_d| * (2^bits - 1) * scale_d: there one
 *             channel that is far larger than all others (no rotation spreads it) sets the step for all.
 *             NaN in a page or row reaches only the queries that see it.
 * Workspace.  Fixed, in the context: no resident dequantised copy, nothing that grows with context.
 * Cost.       Memory bound in decode: kern_attn_bytes.
 * Errors.     BAD_INPUT (a limit is broken, nothing written), DEVICE_LOST. */
#ifndef KERNELS_OP_ATTN_H
#define KERNELS_OP_ATTN_H

#include "base/status.h"
#include "kernels/page.h"

#include <stdbool.h>
#include <stdint.h>

#define KERN_MAX_ROW_BLOCKS 64 /* of a window, and of sinks */

struct kern_ctx;

typedef struct kern_attn_page {
    int32_t block; /* index in its sequence */
    int32_t page;  /* index into the pool's pages */
} kern_attn_page;

typedef struct kern_attn_seq {
    int64_t position;    /* of its first query */
    int32_t first_token; /* row of q */
    int32_t n_tokens;
    int32_t first_page; /* into page_list */
    int32_t n_pages;
    int32_t first_open; /* into opens */
    int32_t n_opens;
} kern_attn_seq;

typedef struct kern_attn_args {
    const float *q;
    float *o;
    float *lse;
    const kern_attn_seq *seqs;       /* [n_seqs] */
    const kern_attn_page *page_list; /* [n_page_list] */
    const kern_open *opens;          /* [n_opens], rows of this layer */
    const kern_head_format *formats; /* [Hkv] of this layer */
    const uint8_t *pages;
    int64_t page_stride;
    int32_t n_pages_total;
    int32_t n_seqs;
    int32_t n_page_list;
    int32_t n_opens;
    int32_t n_tokens;
    int32_t n_heads;
    int32_t n_kv_heads;
    int32_t head_dim;
    int32_t window_blocks; /* whole blocks before a query's own that it sees as rows */
    int32_t sink_blocks;   /* first blocks of a sequence that every query sees as rows */
    float scale;
    bool leaves_basis; /* where no other rank's partials follow */
} kern_attn_args;

/* The first block whose queries see `block` as a page; a query sees it as rows from block `block` on up to that
 * one.  INT32_MAX: none does. */
static inline int32_t kern_attn_page_from(const kern_attn_args *args, int32_t block)
{
    return block < args->sink_blocks || block > INT32_MAX - 1 - args->window_blocks
               ? INT32_MAX
               : block + 1 + args->window_blocks;
}

BASE_MUST_CHECK base_status kern_attn(struct kern_ctx *ctx, const kern_attn_args *args);

/* The limits alone, for what attends in another way (comm_attend).  Errors: BAD_INPUT. */
BASE_MUST_CHECK base_status kern_attn_check(const kern_attn_args *args);

/* Bytes of pages and rows that one call reads at least once. */
int64_t kern_attn_bytes(const kern_attn_args *args);

#endif /* KERNELS_OP_ATTN_H */
