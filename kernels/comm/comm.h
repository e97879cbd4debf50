/* kernels/comm/comm.h - collectives between the ranks of one group.
 *
 * All ranks issue the same calls in the same order with the same sizes.  There are two kinds:
 *   over the host's memory ("self", "mpi"): plans, and the tensors of CPU ranks.  A call has done its work when it
 *     returns, but for the root of a short broadcast.  It has a deadline and waits without spinning a core away: non-blocking
 *     calls, polled with back-off
 *   on a kern_ctx ("nccl-ag", comm_nccl.h): tensors between GPUs.  A call is an op of that context: it is given memory of
 *     the context, runs in the order of ops, is recorded and replayed with them (kernels/replay.h), and has done
 *     its work when they have.  The deadline is of the call alone: whoever waits for ops watches them (comm_look)
 * After PEER_LOST every later call on the comm returns PEER_LOST; the worker then leaves.  Nothing retries.
 * Threads.  One thread only, the one that initialised MPI (FUNNELED), but for comm_look and comm_abort. */
#ifndef KERNELS_COMM_COMM_H
#define KERNELS_COMM_COMM_H

#include "base/alloc.h"
#include "base/status.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

typedef struct comm comm;

#define COMM_SHORT_BYTES 4096
#define COMM_MAX_BYTES \
    INT_MAX /* that a rank gives to a call, and that an all-to-all brings it: what MPI counts */

/* One rank alone: copies, never waits.  For tools and tests. */
BASE_MUST_CHECK base_status comm_self_create(const base_alloc *mem, comm **comm_out);

/* Over a duplicate of MPI_COMM_WORLD.  MPI_Init_thread must have been called by this thread.
 * Errors: NO_MEMORY, PEER_LOST. */
BASE_MUST_CHECK base_status comm_mpi_create(const base_alloc *mem, comm **comm_out);

/* NULL is allowed.  After PEER_LOST nothing that could wait for a peer is called. */
void comm_destroy(comm *c);

int32_t comm_rank(const comm *c);
int32_t comm_size(const comm *c);
const char *comm_name(const comm *c); /* "self", "mpi" */

/* Memory for what comm_all_gather gathers into, zeroed, where the transport is faster with memory of its own; NULL: any
 * memory of the context will do.  Collective: all ranks take the same sizes in the same order. */
const base_alloc *comm_memory(comm *c);

/* Calls that follow on a kern_ctx, replayed ones too, wait limit_ms for a peer at most, where they can give up by
 * themselves: comm_look then names who was missing.  An op of the context.  Errors: BAD_INPUT (limit_ms), DEVICE_LOST. */
BASE_MUST_CHECK base_status comm_set_limit(comm *c, int64_t limit_ms);

/* For the thread that watches the one that waits: whether the transport knows of a fault.  Errors: PEER_LOST. */
BASE_MUST_CHECK base_status comm_look(comm *c);
/* Calls under way, the device's too, are given up; nothing but _exit may follow.  Any thread.  It may not return. */
void comm_abort(comm *c);

/* buf of root reaches every rank.  Over the host's memory the root may return before up to COMM_SHORT_BYTES have reached the
 * others, which a later call then reports: it goes on into the step when a rank hangs, where an exchange can tell which.
 * Errors: BAD_INPUT (root, n_bytes above COMM_MAX_BYTES, timeout_ms < 1, memory that is not the context's: no collective was
 * begun), PEER_LOST (timeout_ms passed, or the transport failed). */
BASE_MUST_CHECK base_status comm_broadcast(comm *c, void *buf, size_t n_bytes, int32_t root,
                                           int64_t timeout_ms);

/* all [size][n_bytes]: rank r's mine at all + r * n_bytes, on every rank.  mine may be its place in all.
 * Errors: as comm_broadcast. */
BASE_MUST_CHECK base_status comm_all_gather(comm *c, const void *mine, void *all, size_t n_bytes,
                                            int64_t timeout_ms);

/* Each rank's part of send to that rank: units begins[r] .. begins[r + 1] of unit_bytes each, or unit r where begins is NULL.
 * recv [size][this rank's part]: what rank r sent at r times the part's bytes.  begins [size + 1] is the host's, ascending
 * from 0, and the same on all ranks.  send and recv do not overlap.
 * Errors: as comm_broadcast (begins; a part, or all that is sent or received, above COMM_MAX_BYTES). */
BASE_MUST_CHECK base_status comm_all_to_all(comm *c, const void *send, void *recv,
                                            const int32_t *begins, size_t unit_bytes,
                                            int64_t timeout_ms);

/* x [n] f32 becomes the sum of all ranks' x, with the same bits on every rank.  Over the host's memory ranks are added in
 * rank order, x goes on for size - 1 elements, which are written too, and room [n + size - 1] overlaps nothing; on a
 * kern_ctx x is 16-byte aligned, the transport has its order, and room is not touched.
 * Errors: as comm_all_to_all. */
BASE_MUST_CHECK base_status comm_sum(comm *c, float *x, int64_t n, float *room, int64_t timeout_ms);

#endif /* KERNELS_COMM_COMM_H */
