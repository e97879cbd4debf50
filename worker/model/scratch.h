/* worker/model/scratch.h - every buffer that a step needs besides the cache, made once. */
#ifndef WORKER_MODEL_SCRATCH_H
#define WORKER_MODEL_SCRATCH_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "worker/model/config.h"
#include "worker/model/split.h"

#include <stdint.h>

typedef struct scratch_limits {
    int32_t n_tokens; /* T of the largest step, 1..SCRATCH_MAX_TOKENS */
    int32_t n_samples;
    int32_t n_ranks; /* N */
    const model_split
        *split; /* of the weights; Hs heads, Fs rows of the MLP, up to Vs ids a rank */
} scratch_limits;

#define SCRATCH_ALIGN      4 /* elements: ranks' partials begin at multiples, since ops store vectors */
#define SCRATCH_MAX_TOKENS (1 << 20) /* with the limits of model_config, counts fit int32_t */

/* f32; T is the step's number of tokens and Tr that of this rank's rows (rows.h), so the buffers are dense for any step.
 * Those that ranks exchange lie apart; the others are one mirror (kernels/memory.h) whose host side is touched where someone
 * fetches.  q, k and v have room for equal shares of all ranks.
 * With whole weights Hs = H, and what only split weights need is not there: of a short step Tr = T, and partials are all
 * ranks'; of a long one they are this rank's for all rows until these are dealt, and then [N][Tr * H * (D + 1)] of its rows. */
typedef struct scratch {
    float *h;        /* [Tr, C]          normalised x; room for sums (comm_sum) */
    float *q;        /* [T, H, D] */
    float *k;        /* [T, Hkv, D] */
    float *v;        /* [T, Hkv, D] */
    float *attn;     /* [Tr, Hs, D]      merged, out of the page basis */
    float *gate;     /* [Tr, Fs] */
    float *up;       /* [Tr, Fs] */
    float *sample;   /* [n_samples, C]   rows that the head reads */
    float *inv_freq; /* [D/2] */
    float *turns;    /* [T, D/2, 2]      of the step's positions */
    float *x;        /* [Tr, C]          residual */
    float *
        partials; /* [N or 1][T * H * (D + 1)]  o [T, H, D], then lse [T, H] of each rank, from a multiple of
                     SCRATCH_ALIGN on, or of this one */
    float *
        dealt; /* [T * H * (D + 1)]          split, long: this rank's partials by their owners (op_deal.h) */
    float *received; /* [N][T * Hs * (D + 1)]      split: all ranks' of this rank's heads */
    float *logits;   /* [N][n_samples * Vs]        split: every rank's ids of all samples */
    void *data;
    void *exchanged_data;
    kern_ctx *ctx;
    const base_alloc *exchanged; /* whose memory exchanged_data is */
} scratch;

/* Bytes that scratch_init takes; INT64_MAX on overflow. */
int64_t scratch_bytes(const model_config *config, const scratch_limits *limits);
/* Collective: what is exchanged comes from what ranks exchange through (comm_memory), ctx's memory where that has no wish.
 * Errors: NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status scratch_init(scratch *s, const model_config *config,
                                         const scratch_limits *limits, kern_ctx *ctx, comm *ranks);
void scratch_reset(scratch *s); /* a zeroed struct is allowed */

#endif /* WORKER_MODEL_SCRATCH_H */
