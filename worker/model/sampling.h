/* worker/model/sampling.h - what a forward keeps to make tokens where the logits are.
 *
 * Of each slot the last token, which the next step's embedding looks up without the host, and the set of ids that
 * its sequence has seen, where a penalty asks for it.  At most KERN_MAX_FETCHES steps' tokens are on their way to the
 * host. */
#ifndef WORKER_MODEL_SAMPLING_H
#define WORKER_MODEL_SAMPLING_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "worker/model/forward.h"

#include <stdint.h>

typedef struct sampling_limits {
    int32_t n_slots; /* 0: nothing is kept, and no token can be made */
    int32_t n_rows;  /* tokens of a step */
    int32_t n_vocab;
} sampling_limits;

typedef struct sampling {
    sampling_limits limits;
    kern_ctx *ctx;
    base_alloc mem;
    float *logits;                 /* memory of ctx, [n_rows, V] */
    uint64_t *seen;                /* mirror, [n_slots][words] */
    char *made;                    /* mirror: last tokens [n_slots], then reports [n_rows] */
    char *taken[KERN_MAX_FETCHES]; /* the host's copies of it */
    uint64_t n_begun;
    uint64_t n_ended;
} sampling;

/* Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status sampling_init(sampling *s, const sampling_limits *limits, kern_ctx *ctx,
                                          const base_alloc *mem);
void sampling_reset(sampling *s);                      /* a zeroed struct is allowed */
int64_t sampling_bytes(const sampling_limits *limits); /* that init takes; INT64_MAX on overflow */

/* [n_slots] */
int32_t *sampling_last_tokens(const sampling *s);

/* Sets of sequences that begin to make tokens.  Errors: DEVICE_LOST. */
BASE_MUST_CHECK base_status sampling_prepare(sampling *s, const forward_pick *picks,
                                             int32_t n_picks);
/* The op: rows [n_rows], a mirror, of logits.  Errors: as kern_sample. */
BASE_MUST_CHECK base_status sampling_run(const sampling *s, const kern_sample_row *rows,
                                         int32_t n_rows);
/* Tokens of the ops called so far begin their way to the host, with the reports of n_reports rows.
 * Errors: as kern_fetch_begin. */
BASE_MUST_CHECK base_status sampling_begin_fetch(sampling *s, int32_t n_reports);
/* Those begun first are there: valid until the next call.  Errors: as kern_fetch_end. */
BASE_MUST_CHECK base_status sampling_end_fetch(sampling *s, forward_made *made_out);

#endif /* WORKER_MODEL_SAMPLING_H */
