/* kernels/comm/comm_merge.h - partials of all ranks, merged on every rank: the exchange of a layer. */
#ifndef KERNELS_COMM_COMM_MERGE_H
#define KERNELS_COMM_COMM_MERGE_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"

/* args: of op_merge.h, with n_ranks the comm's size and this rank's place among the partials filled.  The call may fill
 * the others', or not: "lsa" merges what it receives.
 * Errors: those of comm_all_gather and kern_merge. */
BASE_MUST_CHECK base_status comm_merge(comm *c, kern_ctx *ctx, const kern_merge_args *args,
                                       int64_t timeout_ms);

#endif /* KERNELS_COMM_COMM_MERGE_H */
