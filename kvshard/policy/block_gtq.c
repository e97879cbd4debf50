/* Block-GTQ (arXiv 2606.24033) in pages: K's RoPE blocks (i, i + D/2) get bits by their energy; V is TurboQuant-MSE.
 *
 * Logits see q . k alone, so a block of K may be stretched by any number if its queries shrink by the same.  A group of n
 * blocks is turned as one vector, and each block bears the mean of the group's error: the mean square error of
 * a logit is error(b) / (2 n) times the group's energy of K times its energy of q.  By Cauchy and Schwarz that product is
 * least, the square of the sum of the blocks' sqrt(q k), where every block's two energies are the same: which is how K
 * is stretched.  What is left to choose is which blocks stand together at how many bits: blocks go by their weight
 * sqrt(q k) in eights, 16 dims being what tensor cores want, into one group or two (allocate.h).
 *
 * The budget is that of tq with the same k: k bits of every dim and one norm.  A second norm comes out of the codes. */
#include "kvshard/allocate.h"
#include "kvshard/policy/policy_impl.h"

#include <math.h>

#define DIMS_OF_BLOCK 2
#define ITEM_BLOCKS   8 /* 16 dims */
#define MAX_BLOCKS    (KERN_MAX_HEAD_DIM / DIMS_OF_BLOCK)
#define MAX_ITEMS     (MAX_BLOCKS / ITEM_BLOCKS)
#define NORM_BITS     16
#define FAST_BITS     4 /* kernels multiply codes of up to so many bits at once (kvshard/codebook.h) */
#define MOST_BITS     8
#define MOST_STRETCH  256.0 /* so that blocks without energy stay harmless */

/* More than FAST_BITS are taken for at most this share of the mean square error. */
#define WORTH_BITS 0.25

_Static_assert(KV_MAX_GROUPS <= KERN_MAX_SEGMENTS, "a segment for every group");

/* Blocks by weight, lowest first, the lower index first among equals. */
static void sort_blocks(const double *weights, int32_t n, int32_t *sorted_out)
{
    for (int32_t i = 0; i < n; i++) {
        int32_t at = i;
        while (at > 0 && weights[sorted_out[at - 1]] > weights[i]) {
            sorted_out[at] = sorted_out[at - 1];
            at--;
        }
        sorted_out[at] = i;
    }
}

static kv_groups choose(const double *item_weights, int32_t n_items, int32_t mean_bits)
{
    kv_group_rule rule = {
        .item_dims = ITEM_BLOCKS * DIMS_OF_BLOCK, .norm_bits = NORM_BITS, .most_bits = FAST_BITS};
    rule.budget = n_items * rule.item_dims * mean_bits + rule.norm_bits;
    const kv_groups fast = kv_allocate_groups(item_weights, n_items, &rule);
    rule.most_bits = MOST_BITS;
    const kv_groups any = kv_allocate_groups(item_weights, n_items, &rule);
    return any.error < WORTH_BITS * fast.error ? any : fast;
}

/* The group of every block. */
static kv_groups allocate(const double *weights, int32_t n_blocks, int32_t mean_bits,
                          int32_t *group_out)
{
    int32_t sorted[MAX_BLOCKS];
    double items[MAX_ITEMS] = {0.0};

    sort_blocks(weights, n_blocks, sorted);
    for (int32_t i = 0; i < n_blocks; i++) {
        items[i / ITEM_BLOCKS] += weights[sorted[i]];
    }
    const kv_groups groups = choose(items, n_blocks / ITEM_BLOCKS, mean_bits);
    for (int32_t i = 0; i < n_blocks; i++) {
        group_out[sorted[i]] = i / ITEM_BLOCKS >= groups.n_items[0];
    }
    return groups;
}

/* What makes the two energies of a block the same. */
static float stretch_of(float q, float k)
{
    if (q <= 0.0f || k <= 0.0f) {
        return 1.0f;
    }
    const double stretch = sqrt(sqrt((double)q / (double)k));
    return (float)fmin(fmax(stretch, 1.0 / MOST_STRETCH), MOST_STRETCH);
}

/* The lightest group first; in a group blocks in their order; of a block dim i, then i + D/2. */
static void plan_k(const float *energies, int32_t head_dim, int32_t mean_bits,
                   kv_side_plan *plan_out)
{
    const int32_t n_blocks = head_dim / DIMS_OF_BLOCK;
    const float *q = energies;
    const float *k = energies + n_blocks;
    double weights[MAX_BLOCKS];
    int32_t group[MAX_BLOCKS];
    int32_t dim = 0;

    for (int32_t i = 0; i < n_blocks; i++) {
        weights[i] = sqrt((double)q[i] * (double)k[i]);
    }
    const kv_groups groups = allocate(weights, n_blocks, mean_bits, group);
    *plan_out = (kv_side_plan){.rotated = true, .ordered = true, .stretched = true};
    plan_out->n_segments = groups.n_groups;
    for (int32_t g = 0; g < groups.n_groups; g++) {
        plan_out->segments[g].bits = groups.bits[g];
        plan_out->segments[g].n_dims = groups.n_items[g] * ITEM_BLOCKS * DIMS_OF_BLOCK;
        for (int32_t i = 0; i < n_blocks; i++) {
            for (int32_t half = 0; group[i] == g && half < DIMS_OF_BLOCK; half++) {
                plan_out->order[dim] = (uint16_t)(i + half * n_blocks);
                plan_out->stretch[dim++] = stretch_of(q[i], k[i]);
            }
        }
    }
}

static void plan_side(const kv_policy *policy, const kv_shape *shape, const float *energies,
                      int32_t side, kv_side_plan *plan_out)
{
    if (side == 0) {
        plan_k(energies, shape->head_dim, policy->k_bits, plan_out);
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
    .plan_calibrated = plan_side,
};
