/* kvshard/allocate.h - bits for items of different weight.
 *
 * kv_allocate_bits is the allocator of Block-GTQ (arXiv 2606.24033): it minimises J(b) = sum of scores[i] * 4^-b[i]
 * over integers low <= b[i] <= high whose sum is the budget.  Every item starts at low, and each bit that is left goes
 * to the item with the largest scores[i] * 4^-b[i] below high, the lowest index among equals.  J is separable and
 * convex, so this is the optimum.
 *
 * kv_allocate_groups knows what groups are: the dims of a group are turned together, so each bears the mean of their
 * errors, and a group has a norm.  Of a group of n items whose weights sum to S, kept with b bits, the mean square error
 * is error(b) * S^2 / n, error(b) being what TurboQuant-MSE leaves of a unit vector. */
#ifndef KVSHARD_ALLOCATE_H
#define KVSHARD_ALLOCATE_H

#include <stdint.h>

/* scores [n] finite, >= 0; n * low <= budget <= n * high (asserted); bits_out [n].  Any thread. */
void kv_allocate_bits(const double *scores, int32_t n, int32_t budget, int32_t low, int32_t high,
                      int32_t *bits_out);

#define KV_MAX_GROUPS 2

typedef struct kv_groups {
    int32_t n_groups;               /* 1 or 2 */
    int32_t n_items[KV_MAX_GROUPS]; /* the lightest first */
    int32_t bits[KV_MAX_GROUPS];
    double error; /* the sum over groups of error(b) * S^2 / n */
} kv_groups;

typedef struct kv_group_rule {
    int32_t item_dims; /* of an item */
    int32_t norm_bits; /* of a group */
    int32_t
        budget; /* bits of all items' codes and all groups' norms, at least one group of 1 bit */
    int32_t most_bits; /* of a code, 1..8 */
} kv_group_rule;

/* weights [n] ascending, finite, >= 0.  The least error of all ways to cut them into one or two groups and to give each
 * 1..most_bits within the budget; of equals one group, then the earliest cut, then the fewest bits of the first group.
 * Any thread. */
kv_groups kv_allocate_groups(const double *weights, int32_t n, const kv_group_rule *rule);

/* error(b), b 1..8. */
double kv_group_error(int32_t bits);

#endif /* KVSHARD_ALLOCATE_H */
