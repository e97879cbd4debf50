/* kernels/cuda/exchange_attend.h - decode attention of GPUs that reach each other's memory: partials are exchanged and merged
 * (exchange.h) by the launch that adds attention's parts up, in the turn of a merge of as many rows.
 *
 * The bits are those of kern_cuda_attn, which leaves its basis to the merge, and of cuda_exchange_merge or
 * cuda_exchange_merge_own.  All that exchange.h says of those holds here: all ranks make the same calls. */
#ifndef KERNELS_CUDA_EXCHANGE_ATTEND_H
#define KERNELS_CUDA_EXCHANGE_ATTEND_H

#include "kernels/cuda/cuda_pages.h"
#include "kernels/cuda/exchange.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether all CTAs of such a call are on the GPU at once, as they must be, since they wait for their peers'.  deal: NULL, all
 * heads travel to all ranks.  The same on all ranks. */
bool cuda_exchange_can_attend(const cuda_exchange_shape *shape, const kern_attn_args *attn,
                              const kern_deal_args *deal);

/* work and attn: of cuda_pages.h; o and lse of attn are written where that is of use, and nobody else's.  merge, deal: of
 * cuda_exchange_merge, without partials, and, or NULL, cuda_exchange_merge_own, without x.
 * Errors: BAD_INPUT (another shape, or it cannot), DEVICE_LOST. */
BASE_MUST_CHECK base_status cuda_exchange_attend(void *stream, const cuda_exchange_port *port,
                                                 const kern_cuda_attn_work *work,
                                                 const kern_attn_args *attn,
                                                 const kern_deal_args *deal,
                                                 const kern_merge_args *merge);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_EXCHANGE_ATTEND_H */
