/* kernels/comm/comm_lsa.h - exchanges between GPUs of one host by kernels of our own, which store into the peers' memory:
 * the comm named "lsa" (docs/merge.md).
 *
 * Its calls are ops of a context, as those of comm_nccl.h.  Merges (comm_merge.h) of up to max_rows rows, broadcasts of up
 * to max_words whole words, sums of up to COMM_LSA_MAX_SUM elements, which are added in rank order, and gathers of up to
 * COMM_LSA_MAX_GATHER whole words of each rank are one launch each; everything else is `tensors`'s.
 * A kernel waits for a peer as long as comm_set_limit says, then gives up, and so do all that follow: comm_look names
 * the peer. */
#ifndef KERNELS_COMM_COMM_LSA_H
#define KERNELS_COMM_COMM_LSA_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"

#define COMM_LSA_MAX_ROWS   2048 /* T * H */
#define COMM_LSA_MAX_SUM    (2048 * 128)
#define COMM_LSA_MAX_GATHER (2048 * 128)

typedef struct comm_lsa_options {
    comm *host;    /* of the same ranks; borrowed, as ctx: both end later */
    kern_ctx *ctx; /* on a GPU */
    comm *tensors; /* on ctx; the new comm's, once it is made */
    int32_t head_dim;
    int32_t max_rows; /* up to COMM_LSA_MAX_ROWS */
    int32_t max_words;
    int64_t limit_ms; /* until comm_set_limit */
} comm_lsa_options;

/* Collective.  All that was recorded must be gone when it is destroyed (kernels/replay.h).
 * Errors, on every rank alike: UNAVAILABLE (a rank cannot reach the memory of the others, and why: take `tensors`
 * alone), BAD_INPUT (a context that is not on a GPU, a build without CUDA), PEER_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status comm_lsa_create(const comm_lsa_options *options, const base_alloc *mem,
                                            comm **comm_out);

#endif /* KERNELS_COMM_COMM_LSA_H */
