/* kvshard/allocate.h - bits for items of different energy: the allocator of Block-GTQ (arXiv 2606.24033).
 *
 * Minimises J(b) = sum of scores[i] * 4^-b[i] over integers low <= b[i] <= high whose sum is the budget:
 * every item starts at low, and each bit that is left goes to the item with the largest scores[i] * 4^-b[i]
 * below high, the lowest index among equals.  J is separable and convex, so this is the optimum. */
#ifndef KVSHARD_ALLOCATE_H
#define KVSHARD_ALLOCATE_H

#include <stdint.h>

/* scores [n] finite, >= 0; n * low <= budget <= n * high (asserted); bits_out [n].  Any thread. */
void kv_allocate_bits(const double *scores, int32_t n, int32_t budget, int32_t low, int32_t high,
                      int32_t *bits_out);

#endif /* KVSHARD_ALLOCATE_H */
