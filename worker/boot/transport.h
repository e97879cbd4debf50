/* worker/boot/transport.h - the comm that exchanges tensors, by the name that --merge has for it. */
#ifndef WORKER_BOOT_TRANSPORT_H
#define WORKER_BOOT_TRANSPORT_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct transport_place { /* of this rank; borrowed, and ends after the comm */
    kern_ctx *ctx;
    comm *host;       /* of the same ranks */
    const char *who;  /* "rank 2 on node7, GPU 1" */
    bool shared_gpu;  /* there may be more ranks than GPUs */
    bool splits;      /* the ranks share the weights */
    int32_t head_dim; /* these and limit_ms: lsa's (comm_lsa.h) */
    int32_t max_rows;
    int32_t max_words;
    int64_t limit_ms;
    bool or_less; /* NCCL's alone where lsa is not to be had, and a warning */
} transport_place;

/* Collective; name is one of COMM_WAYS.  "mpi" is over the host's memory and needs nothing of the place.
 * Errors: UNAVAILABLE (lsa, and why; on all ranks alike), BAD_INPUT (no such name; no NCCL in this build), NO_MEMORY, PEER_LOST. */
BASE_MUST_CHECK base_status transport_open(const char *name, const transport_place *place,
                                           const base_alloc *mem, comm **comm_out);

#endif /* WORKER_BOOT_TRANSPORT_H */
