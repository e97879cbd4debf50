#include "worker/bench/ways.h"

#include "kernels/comm/comm_lsa.h"
#include "kernels/comm/comm_nccl.h"

#define MAX_WORDS 256
#define LIMIT_MS  20000 /* ranks may share a GPU, and then take turns */

static base_status open_mpi(const way_place *place, const base_alloc *mem, comm **comm_out)
{
    (void)place;
    return comm_mpi_create(mem, comm_out);
}

static base_status open_nccl(const way_place *place, comm_nccl_way kind, const base_alloc *mem,
                             comm **comm_out)
{
    const comm_nccl_options options = {.host = place->host,
                                       .ctx = place->ctx,
                                       .who = place->who,
                                       .way = kind,
                                       .shared_gpu = place->shared_gpu};
    return comm_nccl_create(&options, mem, comm_out);
}

static base_status open_ag(const way_place *place, const base_alloc *mem, comm **comm_out)
{
    return open_nccl(place, COMM_NCCL_AG, mem, comm_out);
}

static base_status open_a2a(const way_place *place, const base_alloc *mem, comm **comm_out)
{
    return open_nccl(place, COMM_NCCL_A2A, mem, comm_out);
}

static base_status open_ar(const way_place *place, const base_alloc *mem, comm **comm_out)
{
    return open_nccl(place, COMM_NCCL_AR, mem, comm_out);
}

static base_status open_lsa(const way_place *place, const base_alloc *mem, comm **comm_out)
{
    base_status st = BASE_OK;
    comm *beneath = NULL;
    BASE_TRY(st, out, open_nccl(place, COMM_NCCL_AG, mem, &beneath));
    const comm_lsa_options options = {.host = place->host,
                                      .ctx = place->ctx,
                                      .tensors = beneath,
                                      .head_dim = place->head_dim,
                                      .max_rows = place->max_rows,
                                      .max_words = MAX_WORDS,
                                      .limit_ms = LIMIT_MS};
    BASE_TRY(st, out, comm_lsa_create(&options, mem, comm_out));
    beneath = NULL;
out:
    comm_destroy(beneath);
    return st;
}

const way ways[] = {
    {"mpi", KERN_DEVICE_CPU, true, CHAIN_MERGE, open_mpi},
    {"mpi-a2a", KERN_DEVICE_CPU, false, CHAIN_MERGE_OWN, open_mpi},
    {"nccl-ag", KERN_DEVICE_CUDA, true, CHAIN_MERGE, open_ag},
    {"nccl-a2a", KERN_DEVICE_CUDA, false, CHAIN_MERGE_OWN, open_a2a},
    {"nccl-ar", KERN_DEVICE_CUDA, false, CHAIN_MERGE, open_ar},
    {"lsa", KERN_DEVICE_CUDA, true, CHAIN_MERGE, open_lsa},
    {"lsa-a2a", KERN_DEVICE_CUDA, false, CHAIN_MERGE_OWN, open_lsa},
};
const int32_t n_ways = sizeof ways / sizeof ways[0];
