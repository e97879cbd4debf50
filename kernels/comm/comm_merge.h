/* kernels/comm/comm_merge.h - partials of all ranks, merged on every rank: the exchange of a layer. */
#ifndef KERNELS_COMM_COMM_MERGE_H
#define KERNELS_COMM_COMM_MERGE_H

#include "kernels/comm/comm.h"
#include "kernels/comm/comm_ways.h"
#include "kernels/kern.h"
#include "kernels/op_attn.h"

/* args: of op_merge.h, with n_ranks the comm's size and this rank's place among the partials filled.  The call may fill
 * the others', or not: "lsa" merges what it receives.
 * Errors: those of comm_all_gather and kern_merge. */
BASE_MUST_CHECK base_status comm_merge(comm *c, kern_ctx *ctx, const kern_merge_args *args,
                                       int64_t timeout_ms);

/* The same for ranks that want their own heads alone.  deal: of op_deal.h, from this rank's partials of all heads to room, as
 * many ranks as the comm has.  merge: of this rank's heads, with partials that the call fills, one rank's right behind the
 * other's; "lsa" needs neither these nor the room.  The bits are those of comm_merge for these heads.
 * Errors: those of kern_deal, comm_all_to_all and kern_merge. */
BASE_MUST_CHECK base_status comm_merge_own(comm *c, kern_ctx *ctx, const kern_deal_args *deal,
                                           const kern_merge_args *merge, int64_t timeout_ms);

/* kern_attn with its o and lse as this rank's partials, then comm_merge or comm_merge_own of them; "lsa" exchanges and merges
 * where attention's parts are added up, if sequences have few queries each (op_attn.h), and need not write the partials then.
 * The bits are the same.
 * Errors: those of kern_attn, and of comm_merge or comm_merge_own. */
BASE_MUST_CHECK base_status comm_attend(comm *c, kern_ctx *ctx, const kern_attn_args *attn,
                                        const kern_merge_args *merge, int64_t timeout_ms);
BASE_MUST_CHECK base_status comm_attend_own(comm *c, kern_ctx *ctx, const kern_attn_args *attn,
                                            const kern_deal_args *deal,
                                            const kern_merge_args *merge, int64_t timeout_ms);

#endif /* KERNELS_COMM_COMM_MERGE_H */
