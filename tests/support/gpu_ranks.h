/* tests/support/gpu_ranks.h - the ranks of a test on GPUs, which they share where there are fewer. */
#ifndef TESTS_SUPPORT_GPU_RANKS_H
#define TESTS_SUPPORT_GPU_RANKS_H

#include "kernels/comm/comm_lsa.h"
#include "kernels/comm/comm_nccl.h"
#include "kernels/device.h"
#include "worker/boot/boot_mpi.h"

#include <stdio.h>

/* Collective: a context on this rank's GPU, and NCCL between the ranks of host; both the caller's, also where it fails. */
static inline base_status gpu_ranks_open(const boot_world *world, comm *host, comm_way way,
                                         kern_ctx **ctx_out, comm **tensors_out)
{
    base_status st = BASE_OK;
    const int32_t n_gpus = kern_gpu_count();
    char who[COMM_NCCL_MAX_WHO];

    (void)snprintf(who, sizeof who, "rank %d", world->rank);
    BASE_TRY(st, out, kern_ctx_create_cuda(world->local_rank % n_gpus, &base_heap, ctx_out));
    const comm_nccl_options options = {.host = host,
                                       .ctx = *ctx_out,
                                       .who = who,
                                       .way = way,
                                       .shared_gpu = n_gpus < world->n_local};
    st = comm_nccl_create(&options, &base_heap, tensors_out);
out:
    return st;
}

/* Collective: the one-shot exchange in front of *tensors, with room for few rows, so that longer steps go by what is behind. */
static inline base_status gpu_ranks_add_lsa(comm *host, kern_ctx *ctx, int32_t head_dim,
                                            comm **tensors)
{
    const comm_lsa_options options = {.host = host,
                                      .ctx = ctx,
                                      .tensors = *tensors,
                                      .head_dim = head_dim,
                                      .max_rows = 64,
                                      .max_words = 64,
                                      .limit_ms = 20000};
    return comm_lsa_create(&options, &base_heap, tensors);
}

#endif /* TESTS_SUPPORT_GPU_RANKS_H */
