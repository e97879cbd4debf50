/* kvshard/owner.h - who owns which block: pure arithmetic, used by coordinator and rank 0.
 *
 * Owners of a sequence are runs: from first_block on, owner(b) = (start_rank + b - first_block) mod N,
 * up to the next run. */
#ifndef KVSHARD_OWNER_H
#define KVSHARD_OWNER_H

#include <stdint.h>

typedef struct kv_run {
    int32_t first_block;
    int32_t start_rank;
} kv_run;

/* Blocks that n_tokens positions touch. */
int64_t kv_blocks_of_tokens(int64_t n_tokens);

/* runs ascending, runs[0].first_block == 0, n_runs >= 1. */
int32_t kv_owner_of(const kv_run *runs, int32_t n_runs, int32_t block, int32_t n_ranks);

/* How many blocks of [begin, end) each rank owns; counts_out [n_ranks]. */
void kv_owner_count(const kv_run *runs, int32_t n_runs, int32_t begin, int32_t end, int32_t n_ranks,
                    int32_t *counts_out);

/* The rank to start a run of n_blocks at: among the starts where every rank has room (free_blocks
 * [n_ranks]), the one that leaves the fullest rank with the most free blocks; among equals the one whose
 * odd blocks (n_blocks mod N) fall on the ranks with the most free in sum, without which one full rank would
 * let the others drift apart; then the lowest.  -1: none. */
int32_t kv_owner_place(const int64_t *free_blocks, int32_t n_ranks, int64_t n_blocks);

#endif /* KVSHARD_OWNER_H */
