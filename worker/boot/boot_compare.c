#include "worker/boot/boot_mpi.h"

#include "base/alloc.h"

#include <stdlib.h>

/* Ranks read the model before they meet: slow disks differ by seconds. */
#define MEET_MS 120000

base_status boot_check_launch(int32_t n_ranks, const boot_launch *launch)
{
    const long n_tasks = launch->slurm_ntasks == NULL ? 0 : strtol(launch->slurm_ntasks, NULL, 10);
    if (n_ranks == 1 && n_tasks > 1 && launch->ompi_world_size == NULL &&
        launch->pmix_rank == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "this rank is alone although SLURM_NTASKS is %ld: srun started single "
                         "programs; start with 'srun --mpi=pmix' or with mpirun",
                         n_tasks);
    }
    return BASE_OK;
}

/* *all_out [size][n_bytes], ended with base_heap.put. */
static base_status gather(comm *ranks, const void *mine, size_t n_bytes, void **all_out)
{
    void *all = base_heap.get(base_heap.ctx, n_bytes * (size_t)comm_size(ranks));
    if (all == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%d ranks", comm_size(ranks));
    }
    const base_status st = comm_all_gather(ranks, mine, all, n_bytes, MEET_MS);
    if (st != BASE_OK) {
        base_heap.put(base_heap.ctx, all);
        return st;
    }
    *all_out = all;
    return BASE_OK;
}

base_status boot_compare(comm *ranks, const char *what, base_hash mine)
{
    base_status st = BASE_OK;
    void *all = NULL;

    BASE_TRY(st, out, gather(ranks, &mine, sizeof mine, &all));
    const base_hash *hashes = all;
    for (int32_t r = 1; r < comm_size(ranks); r++) {
        if (!base_hash_equal(hashes[r], hashes[0])) {
            char own[BASE_HASH_TEXT_BYTES];
            char first[BASE_HASH_TEXT_BYTES];
            base_hash_text(hashes[r], own);
            base_hash_text(hashes[0], first);
            st = BASE_FAIL(BASE_BAD_INPUT, "%s of rank %d differs from rank 0's: %s, not %s", what,
                           r, own, first);
            goto out;
        }
    }

out:
    base_heap.put(base_heap.ctx, all);
    return st;
}

base_status boot_gather(comm *ranks, int64_t mine, int64_t *all_out)
{
    return comm_all_gather(ranks, &mine, all_out, sizeof mine, MEET_MS);
}

base_status boot_least(comm *ranks, int64_t mine, int64_t *least_out)
{
    base_status st = BASE_OK;
    void *all = NULL;

    BASE_TRY(st, out, gather(ranks, &mine, sizeof mine, &all));
    const int64_t *values = all;
    int64_t least = values[0];
    for (int32_t r = 1; r < comm_size(ranks); r++) {
        least = values[r] < least ? values[r] : least;
    }
    *least_out = least;

out:
    base_heap.put(base_heap.ctx, all);
    return st;
}
