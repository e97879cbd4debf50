#include "kvshard/owner.h"

#include "kernels/page.h"

int64_t kv_blocks_of_tokens(int64_t n_tokens)
{
    return n_tokens / KERN_BLOCK_TOKENS + (n_tokens % KERN_BLOCK_TOKENS != 0);
}

/* The run that block lies in. */
static int32_t find_run(const kv_run *runs, int32_t n_runs, int32_t block)
{
    int32_t low = 0;
    int32_t high = n_runs; /* runs[low] begins at or before block, runs[high] after it */
    while (high - low > 1) {
        const int32_t mid = low + (high - low) / 2;
        if (runs[mid].first_block <= block) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return low;
}

static int32_t owner_in_run(const kv_run *run, int32_t block, int32_t n_ranks)
{
    return (int32_t)(((int64_t)run->start_rank + block - run->first_block) % n_ranks);
}

int32_t kv_owner_of(const kv_run *runs, int32_t n_runs, int32_t block, int32_t n_ranks)
{
    return owner_in_run(&runs[find_run(runs, n_runs, block)], block, n_ranks);
}

/* Of n_blocks dealt in turn from `start` on, how many fall to `rank`. */
static int64_t share(int64_t n_blocks, int32_t start, int32_t rank, int32_t n_ranks)
{
    const int32_t turn = (int32_t)(((int64_t)rank - start + n_ranks) % n_ranks);
    return n_blocks / n_ranks + (turn < n_blocks % n_ranks);
}

void kv_owner_count(const kv_run *runs, int32_t n_runs, int32_t begin, int32_t end, int32_t n_ranks,
                    int32_t *counts_out)
{
    for (int32_t rank = 0; rank < n_ranks; rank++) {
        counts_out[rank] = 0;
    }
    if (begin >= end) {
        return;
    }
    for (int32_t i = find_run(runs, n_runs, begin); i < n_runs && runs[i].first_block < end; i++) {
        const int32_t low = runs[i].first_block > begin ? runs[i].first_block : begin;
        const int32_t next = i + 1 < n_runs ? runs[i + 1].first_block : end;
        const int32_t high = next < end ? next : end;
        const int32_t start = owner_in_run(&runs[i], low, n_ranks);
        for (int32_t rank = 0; rank < n_ranks; rank++) {
            counts_out[rank] += (int32_t)share(high - low, start, rank, n_ranks);
        }
    }
}

int32_t kv_owner_place(const int64_t *free_blocks, int32_t n_ranks, int64_t n_blocks)
{
    int32_t best = -1;
    int64_t best_left = -1;
    int64_t best_odd_free = 0;

    for (int32_t start = 0; start < n_ranks; start++) {
        int64_t left = INT64_MAX; /* of the rank that this start leaves fullest */
        int64_t odd_free = 0;     /* of the ranks that get one block more than others */
        for (int32_t rank = 0; rank < n_ranks; rank++) {
            const int64_t n_here = share(n_blocks, start, rank, n_ranks);
            const int64_t rest = free_blocks[rank] - n_here;
            left = rest < left ? rest : left;
            odd_free += n_here > n_blocks / n_ranks ? free_blocks[rank] : 0;
        }
        if (left > best_left || (left == best_left && left >= 0 && odd_free > best_odd_free)) {
            best = start;
            best_left = left;
            best_odd_free = odd_free;
        }
    }
    return best;
}
