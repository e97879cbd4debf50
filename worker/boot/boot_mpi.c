#include "worker/boot/boot_mpi.h"

#include <mpi.h>

base_status boot_mpi_start(const boot_launch *launch, boot_world *world_out)
{
    base_status st = BASE_OK;
    MPI_Comm local = MPI_COMM_NULL;
    boot_world w = {0, 0, 0, 0};
    int provided = MPI_THREAD_SINGLE;

    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        return BASE_FAIL(BASE_IO, "MPI does not start");
    }
    if (provided < MPI_THREAD_FUNNELED) {
        st = BASE_FAIL(BASE_IO, "this MPI allows no threads beside it");
        goto out;
    }
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &w.rank);
    (void)MPI_Comm_size(MPI_COMM_WORLD, &w.n_ranks);
    BASE_TRY(st, out, boot_check_launch(w.n_ranks, launch));
    if (MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, w.rank, MPI_INFO_NULL, &local) !=
        MPI_SUCCESS) {
        st = BASE_FAIL(BASE_IO, "MPI does not tell which ranks share this host");
        goto out;
    }
    (void)MPI_Comm_rank(local, &w.local_rank);
    (void)MPI_Comm_size(local, &w.n_local);
    (void)MPI_Comm_free(&local);
    *world_out = w;

out:
    if (st != BASE_OK) {
        (void)MPI_Finalize();
    }
    return st;
}

void boot_mpi_end(void)
{
    (void)MPI_Finalize();
}
