/* tests/multirank/collectives.h - what every comm of tensors does, over the host's memory or as ops of a context: cmocka
 * tests that all ranks run together.
 *
 * *state is a `collectives`. */
#ifndef TESTS_MULTIRANK_COLLECTIVES_H
#define TESTS_MULTIRANK_COLLECTIVES_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"

#define COLLECTIVES_TIMEOUT_MS 20000 /* a slow machine is not a lost peer */

typedef struct collectives {
    comm *host;    /* of the same ranks */
    comm *tensors; /* under test: host, where ctx is on the CPU */
    kern_ctx *ctx; /* partials are of a head dimension of 128 */
} collectives;

/* What `rank` sends in a turn; of two ranks or turns no bytes agree, shifted or not. */
uint8_t collectives_byte(int32_t rank, size_t i, int32_t turn);
void collectives_fill(uint8_t *bytes, size_t n_bytes, int32_t rank, int32_t turn);
/* Fails the test where they are not those of rank. */
void collectives_check(const uint8_t *bytes, size_t n_bytes, int32_t rank, int32_t turn);

/* Mirrors of ctx. */
void *collectives_get(const collectives *c, size_t n_bytes);
void collectives_put(const collectives *c, void *mirror);

void all_gather_collects_every_rank_in_place_too(void **state);
void broadcast_reaches_every_rank_from_every_root(void **state);
void all_to_all_brings_every_rank_its_part(void **state);
void sum_is_that_of_all_ranks_and_the_same_everywhere(void **state);
/* In the bits of comm_merge. */
void merge_of_own_heads_is_that_of_all(void **state);

#endif /* TESTS_MULTIRANK_COLLECTIVES_H */
