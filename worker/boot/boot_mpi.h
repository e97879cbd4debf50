/* worker/boot/boot_mpi.h - how a rank comes into the world, and whether the ranks are alike.
 *
 * Threads.  All calls on main's thread, which is the only one that calls MPI. */
#ifndef WORKER_BOOT_BOOT_MPI_H
#define WORKER_BOOT_BOOT_MPI_H

#include "base/hash.h"
#include "base/status.h"
#include "kernels/comm/comm.h"

#include <stdint.h>

typedef struct boot_world {
    int32_t rank;
    int32_t n_ranks;
    int32_t local_rank; /* among the ranks of this host */
    int32_t n_local;
} boot_world;

/* What the launcher left in the environment; NULL where it did not. */
typedef struct boot_launch {
    const char *slurm_ntasks;    /* SLURM_NTASKS */
    const char *ompi_world_size; /* OMPI_COMM_WORLD_SIZE: mpirun was here */
    const char *pmix_rank;       /* PMIX_RANK: a launcher with PMIx was here */
} boot_launch;

/* N tasks that each think they are alone (srun without PMIx).  Pure.
 * Errors: BAD_INPUT with the fix in the text. */
BASE_MUST_CHECK base_status boot_check_launch(int32_t n_ranks, const boot_launch *launch);

/* MPI_Init_thread (FUNNELED).  Errors: IO (no MPI), BAD_INPUT (as boot_check_launch; MPI is ended again). */
BASE_MUST_CHECK base_status boot_mpi_start(const boot_launch *launch, boot_world *world_out);
/* MPI_Finalize: waits for all ranks, so not after one is lost. */
void boot_mpi_end(void);

/* Collective: every rank must bring what rank 0 brings.  `what` names it in the error.
 * Errors, on every rank alike: BAD_INPUT naming the first rank that differs, PEER_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status boot_compare(comm *ranks, const char *what, base_hash mine);
/* Collective: all_out [size], every rank's value.  Errors: PEER_LOST. */
BASE_MUST_CHECK base_status boot_gather(comm *ranks, int64_t mine, int64_t *all_out);
/* Collective: the least of all ranks' values.  Errors: PEER_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status boot_least(comm *ranks, int64_t mine, int64_t *least_out);

#endif /* WORKER_BOOT_BOOT_MPI_H */
