/* kernels/page.h - how the bytes of a KV page are read: what kernels know of a policy.
 *
 * A block is KERN_BLOCK_TOKENS consecutive positions of a sequence; its page holds K and V of all
 * layers and KV heads.  The head page of one (layer, KV head) starts `offset` bytes into the
 * block's page and holds, in this order, K codes, K metadata, V codes, V metadata (plain order):
 *
 *   codes   [128][n_dims] of `bits` bits, little-endian bit stream per position, row by row;
 *           each segment apart.  KERN_PLAIN: bf16 values, no metadata.
 *   norms   fp16 [128], one per position                                      KERN_CODEBOOK
 *   scales  fp16 [128 / group][n_dims], then minima, the same shape           KERN_AFFINE_CHANNEL
 *   scales  fp16 [128][n_dims / group], then minima, the same shape           KERN_AFFINE_POSITION
 *
 * A codebook value is norm * centroids[code].  An affine value is min + scale * code in f32 (the product is
 * exact), with the scale and min of its channel and of its `group` consecutive positions, or of its position
 * and of its `group` consecutive channels.
 * The page basis of a side, which rows, pages and queries share, and which outputs leave once, when merged:
 *   order  (if not NULL)  y[j] = x[order[j]], so that segments are any sets of model dims
 *   signs  (if not NULL)  then over each segment of n = m * h dims, h a power of two, m in {1, 3, 5, 7}:
 *          y = (M(m) (x) Hadamard(h) / sqrt(h)) * diag(signs) * y, part i of h dims becoming the sum over parts
 *          j of M[i][j] = row[(j - i) mod m] times part j, with the orthogonal circulants
 *          row(1) = 1;  row(3) = 1/3, -2/3, -2/3;  row(5) = 3/5, -2/5 four times;
 *          row(7) = a, a, a, -b, a, -b, -b, a = 0.445903002, b = 0.261203875.
 * Rows of K may be stretched dim by dim and queries shrunk by as much, which leaves q . k as it is: then signs of rows
 * are any numbers but 0, and queries have query_signs, 1 / signs, in their place. */
#ifndef KERNELS_PAGE_H
#define KERNELS_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#define KERN_BLOCK_TOKENS 128
#define KERN_MAX_SEGMENTS 8
#define KERN_MAX_HEAD_DIM 256

typedef enum kern_segment_kind {
    KERN_CODEBOOK,
    KERN_PLAIN,
    KERN_AFFINE_CHANNEL,
    KERN_AFFINE_POSITION,
} kern_segment_kind;

typedef struct kern_segment {
    kern_segment_kind kind;
    int32_t bits;            /* codebook 1..8; affine 2, 4 or 8; plain 16 */
    int32_t first_dim;       /* of the page basis; segments cover 0..head_dim in order */
    int32_t n_dims;          /* multiple of 8; of `group` when affine by position */
    int32_t codes_offset;    /* bytes from the start of the head page, multiple of 16 */
    int32_t norms_offset;    /* the same; codebook only, as are the two tables below */
    const float *centroids;  /* [2^bits] ascending, for a unit norm */
    const float *thresholds; /* [2^bits - 1] ascending; code = how many are < x / norm */
    int32_t group;           /* affine: 32, 64 or 128 elements share a scale and a min */
    int32_t scales_offset;   /* affine: as codes_offset */
    int32_t minima_offset;
} kern_segment;

typedef struct kern_side { /* K or V of one head */
    int32_t n_segments;
    kern_segment segments[KERN_MAX_SEGMENTS];
    const float *signs;       /* of rows [head_dim], in the page basis; NULL: not rotated */
    const float *query_signs; /* of queries [head_dim], K only; NULL: signs, all of them +1 or -1 */
    const uint16_t *order;    /* [head_dim], a permutation of the model's dims; NULL: as they are */
} kern_side;

typedef struct kern_head_format { /* of one (layer, KV head) */
    int32_t head_dim;
    int32_t head_page_bytes; /* multiple of 128 */
    int64_t offset;          /* of the head page in the block's page */
    kern_side k;
    kern_side v;
} kern_head_format;

/* The bf16 rows of one layer of a block that is open, was filled by this step, or is kept as rows for the
 * queries that still see it so (op_attn.h):
 *   rows [Hkv][2][128][D]  bf16 bits, page basis, 2 = K then V */
typedef struct kern_open {
    int32_t block;   /* index in its sequence: positions 128 * block .. */
    int32_t n_carry; /* rows that `carry` holds from earlier steps, 0..128 */
    uint16_t *rows;
    const uint16_t *carry; /* same layout; NULL when n_carry is 0 or the rows are already there */
} kern_open;

static inline bool kern_segment_is_affine(const kern_segment *segment)
{
    return segment->kind == KERN_AFFINE_CHANNEL || segment->kind == KERN_AFFINE_POSITION;
}

/* Pairs of scale and min of an affine segment. */
static inline int32_t kern_segment_pairs(const kern_segment *segment)
{
    return KERN_BLOCK_TOKENS * segment->n_dims / segment->group;
}

static inline int64_t kern_open_elems(int32_t n_kv_heads, int32_t head_dim)
{
    return (int64_t)n_kv_heads * 2 * KERN_BLOCK_TOKENS * head_dim;
}

#endif /* KERNELS_PAGE_H */
