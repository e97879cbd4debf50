/* kernels/comm/comm_nccl.h - exchanges between GPUs over NCCL: the comms named "nccl-ag", "nccl-a2a" and "nccl-ar".
 *
 * They differ in the exchange of partials (comm_merge.h): comm_merge gathers all ranks' and merges them, or is the textbook's
 * pair of all-reduces, a baseline within op_merge.h's tolerance; comm_merge_own deals heads out.  Its calls are ops of a context (comm.h).  What comm_memory gives is a symmetric window where every rank's registers,
 * which makes an all-gather of small partials two to three times faster on NVLink (docs/groups.md), else device memory.
 * An error names this rank as `who` does. */
#ifndef KERNELS_COMM_COMM_NCCL_H
#define KERNELS_COMM_COMM_NCCL_H

#include "kernels/comm/comm.h"
#include "kernels/comm/comm_ways.h"
#include "kernels/kern.h"

#include <stdbool.h>

#define COMM_NCCL_MAX_WHO 128

typedef struct comm_nccl_options {
    comm *host;      /* of the same ranks; borrowed: the group's id travels over it */
    kern_ctx *ctx;   /* on a GPU that no other rank uses; borrowed, and ends later than the comm */
    const char *who; /* "rank 2 on node7, GPU 1" */
    comm_way way; /* COMM_NCCL_A2A is as COMM_NCCL_AG, under the name of what split weights use */
    bool
        shared_gpu; /* ranks share GPUs: NCCL is told that each is a host of its own, and goes over loopback sockets */
} comm_nccl_options;

/* Collective.  All that was recorded must be gone when it is destroyed (kernels/replay.h).
 * Errors: BAD_INPUT (no NCCL in this build, a context that is not on a GPU), NO_MEMORY, PEER_LOST (a rank did not come in
 * a minute, or NCCL failed). */
BASE_MUST_CHECK base_status comm_nccl_create(const comm_nccl_options *options,
                                             const base_alloc *mem, comm **comm_out);

/* Of the library that is loaded: 22803 is 2.28.3.  0: none in this build. */
int32_t comm_nccl_version(void);

#endif /* KERNELS_COMM_COMM_NCCL_H */
