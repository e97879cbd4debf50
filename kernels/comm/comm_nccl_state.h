/* kernels/comm/comm_nccl_state.h - what comm_nccl.c and comm_nccl_ar.c share. */
#ifndef KERNELS_COMM_COMM_NCCL_STATE_H
#define KERNELS_COMM_COMM_NCCL_STATE_H

#include "kernels/comm/comm_backend.h"
#include "kernels/comm/comm_nccl.h"
#include "kernels/cuda/cuda_share.h"

#include <nccl.h>
#include <pthread.h>

#define COMM_NCCL_MAX_WINDOWS 4

typedef struct comm_nccl_window {
    void *bytes;         /* NULL: free */
    ncclWindow_t handle; /* NULL: plain memory */
} comm_nccl_window;

typedef struct nccl_comm {
    comm base;
    comm *host;
    kern_ctx *ctx;
    cudaStream_t stream;
    ncclComm_t handle; /* NULL until NCCL has made it */
    pthread_mutex_t lock;
    base_alloc memory;
    comm_nccl_window windows[COMM_NCCL_MAX_WINDOWS];
    bool aborted;
    char who[COMM_NCCL_MAX_WHO];
} nccl_comm;

/* x [n_elems] of the device becomes what `op` makes of all ranks' from.  Errors: PEER_LOST. */
BASE_MUST_CHECK base_status comm_nccl_reduce(nccl_comm *n, const float *from, float *x,
                                             int64_t n_elems, ncclRedOp_t op, int64_t timeout_ms);

/* Of "nccl-ar": comm_merge.h by the textbook's pair of all-reduces, within the tolerance of op_merge.h and not its bits. */
bool comm_nccl_ar_can_merge(const comm *c, const kern_merge_args *args);
base_status comm_nccl_ar_merge(comm *c, const kern_merge_args *args);

#endif /* KERNELS_COMM_COMM_NCCL_STATE_H */
