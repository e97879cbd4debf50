/* worker/model/scratch.h - every buffer that a step needs besides the cache, made once. */
#ifndef WORKER_MODEL_SCRATCH_H
#define WORKER_MODEL_SCRATCH_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "worker/model/config.h"

#include <stdint.h>

typedef struct scratch_limits {
    int32_t n_tokens; /* T of the largest step, 1..SCRATCH_MAX_TOKENS */
    int32_t n_samples;
    int32_t n_ranks;
} scratch_limits;

#define SCRATCH_MAX_TOKENS (1 << 20) /* with the limits of model_config, counts fit int32_t */

/* f32, one mirror (kernels/memory.h) whose host side is touched where someone fetches, and the partials apart, which
 * ranks exchange; T is the step's number of tokens, so the buffers are dense for any step. */
typedef struct scratch {
    float *x;        /* [T, C]          residual */
    float *h;        /* [T, C]          normalised x */
    float *q;        /* [T, H, D] */
    float *k;        /* [T, Hkv, D] */
    float *v;        /* [T, Hkv, D] */
    float *partials; /* [N][T * H * (D + 1)]  o [T, H, D], then lse [T, H] of each rank */
    float *attn;     /* [T, H, D]       merged, out of the page basis */
    float *gate;     /* [T, F] */
    float *up;       /* [T, F] */
    float *sample;   /* [n_samples, C]  rows that the head reads */
    float *inv_freq; /* [D/2] */
    float *turns;    /* [T, D/2, 2]     of the step's positions */
    void *data;
    void *partial_data;
    kern_ctx *ctx;
    const base_alloc *exchanged; /* whose memory partial_data is */
} scratch;

/* Bytes that scratch_init takes; INT64_MAX on overflow. */
int64_t scratch_bytes(const model_config *config, const scratch_limits *limits);
/* Collective: partials come from what ranks exchange through (comm_memory), ctx's memory where that has no wish.
 * Errors: NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status scratch_init(scratch *s, const model_config *config,
                                         const scratch_limits *limits, kern_ctx *ctx, comm *ranks);
void scratch_reset(scratch *s); /* a zeroed struct is allowed */

#endif /* WORKER_MODEL_SCRATCH_H */
