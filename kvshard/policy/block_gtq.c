/* Block-GTQ (arXiv 2606.24033): K's RoPE blocks get bits by their energy; V is TurboQuant-MSE.
 *
 * The paper gives each block (i, i + D/2) its own width; all blocks of a width form one rate group with
 * a norm of its own.  Tensor cores want groups in multiples of 16 dims, so here blocks go in eights: blocks
 * are sorted by score, every eight neighbours are one item whose score is their sum, and the paper's greedy
 * runs over those items, at the same number of bits.  An exchange shows that this is the optimum of the paper's
 * J among all allocations whose groups are multiples of eight blocks. */
#include "kvshard/allocate.h"
#include "kvshard/policy/policy_impl.h"

#define DIMS_OF_BLOCK 2
#define ITEM_BLOCKS   8 /* 16 dims */
#define MAX_BLOCKS    (KERN_MAX_HEAD_DIM / DIMS_OF_BLOCK)
#define MAX_ITEMS     (MAX_BLOCKS / ITEM_BLOCKS)
#define LEAST_BITS    1
#define MOST_BITS     8

_Static_assert(MOST_BITS - LEAST_BITS + 1 <= KERN_MAX_SEGMENTS, "a segment for every width");

/* Blocks by score, highest first, the lower index first among equals. */
static void sort_blocks(const float *scores, int32_t n, int32_t *sorted_out)
{
    for (int32_t i = 0; i < n; i++) {
        int32_t at = i;
        while (at > 0 && scores[sorted_out[at - 1]] < scores[i]) {
            sorted_out[at] = sorted_out[at - 1];
            at--;
        }
        sorted_out[at] = i;
    }
}

/* The width of every block. */
static void allocate(const float *scores, int32_t n_blocks, int32_t mean_bits, int32_t *bits_out)
{
    const int32_t n_items = n_blocks / ITEM_BLOCKS;
    int32_t sorted[MAX_BLOCKS];
    double sums[MAX_ITEMS] = {0.0};
    int32_t item_bits[MAX_ITEMS];

    sort_blocks(scores, n_blocks, sorted);
    for (int32_t i = 0; i < n_blocks; i++) {
        sums[i / ITEM_BLOCKS] += (double)scores[sorted[i]];
    }
    kv_allocate_bits(sums, n_items, n_items * mean_bits, LEAST_BITS, MOST_BITS, item_bits);
    for (int32_t i = 0; i < n_blocks; i++) {
        bits_out[sorted[i]] = item_bits[i / ITEM_BLOCKS];
    }
}

/* Groups by width, the narrowest first; in a group blocks in their order; of a block dim i, then i + D/2. */
static void plan_k(const float *scores, int32_t head_dim, int32_t mean_bits, kv_side_plan *plan_out)
{
    const int32_t n_blocks = head_dim / DIMS_OF_BLOCK;
    int32_t bits[MAX_BLOCKS];
    int32_t dim = 0;

    *plan_out = (kv_side_plan){.rotated = true};
    plan_out->ordered = true;
    allocate(scores, n_blocks, mean_bits, bits);
    for (int32_t width = LEAST_BITS; width <= MOST_BITS; width++) {
        const int32_t first = dim;
        for (int32_t i = 0; i < n_blocks; i++) {
            if (bits[i] == width) {
                plan_out->order[dim++] = (uint16_t)i;
                plan_out->order[dim++] = (uint16_t)(i + n_blocks);
            }
        }
        if (dim > first) {
            plan_out->segments[plan_out->n_segments].bits = width;
            plan_out->segments[plan_out->n_segments++].n_dims = dim - first;
        }
    }
}

static void plan_side(const kv_policy *policy, const kv_shape *shape, const float *scores,
                      int32_t side, kv_side_plan *plan_out)
{
    if (side == 0) {
        plan_k(scores, shape->head_dim, policy->k_bits, plan_out);
        return;
    }
    *plan_out = (kv_side_plan){
        .rotated = policy->v_bits != 16,
        .n_segments = 1,
        .segments = {{.kind = policy->v_bits == 16 ? KERN_PLAIN : KERN_CODEBOOK,
                      .bits = policy->v_bits,
                      .n_dims = shape->head_dim}},
    };
}

static const kv_policy_key keys[] = {
    {.name = "k", .offset = offsetof(kv_policy, k_bits), .low = 1, .high = 8, .also = 8},
    {.name = "v", .offset = offsetof(kv_policy, v_bits), .low = 2, .high = 8, .also = 16},
    {.name = "paper",
     .offset = offsetof(kv_policy, paper),
     .low = 0,
     .high = 1,
     .also = 1,
     .flag = true},
};

const kv_policy_impl kv_policy_impl_BLOCK_GTQ = {
    .initial = {.kind = KV_POLICY_BLOCK_GTQ, .k_bits = 3, .v_bits = 3},
    .keys = keys,
    .n_keys = 3,
    .calibration = "block-gtq",
    .plan_scored = plan_side,
};
