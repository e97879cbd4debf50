/* kernels/comm/comm_timed.h - a comm that counts the time of the exchanges it passes on, each waited for. */
#ifndef KERNELS_COMM_COMM_TIMED_H
#define KERNELS_COMM_COMM_TIMED_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"

/* inner and ctx, whose memory it exchanges, are borrowed and must outlive it.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status comm_timed_create(comm *inner, kern_ctx *ctx, const base_alloc *mem,
                                              comm **comm_out);
/* Nanoseconds and calls since create or the last take. */
void comm_timed_take(comm *c, int64_t *ns_out, int64_t *n_calls_out);

#endif /* KERNELS_COMM_COMM_TIMED_H */
