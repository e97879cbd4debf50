/* worker/engine/plan.h - what all ranks do in one step, as flat arrays that travel in one broadcast.
 *
 * Made by rank 0's scheduler, followed to the letter by every rank. */
#ifndef WORKER_ENGINE_PLAN_H
#define WORKER_ENGINE_PLAN_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

#define PLAN_MAX_SEQS   1024
#define PLAN_MAX_TOKENS ((1 << 20) + PLAN_MAX_SEQS)
#define PLAN_LAST_TOKEN (-1) /* an id that stands for the slot's last sampled token */

typedef enum plan_kind {
    PLAN_IDLE, /* heartbeat: nothing to do */
    PLAN_STEP,
    PLAN_STOP, /* all ranks leave */
} plan_kind;

typedef struct plan_seq {
    int64_t position; /* of its first token */
    int32_t slot;
    int32_t n_tokens;
    int32_t first_token; /* into ids */
    bool clears;         /* a new sequence: empty the slot's table first */
    bool samples;        /* its last token's logits give a new token */
} plan_seq;

typedef struct plan_page { /* a block that a sequence begins in this step */
    int32_t slot;
    int32_t block;
    int32_t rank; /* its owner */
    int32_t page; /* in the owner's pool */
} plan_page;

typedef struct step_plan {
    plan_kind kind;
    uint64_t step;
    int32_t n_seqs;
    int32_t n_tokens;
    int32_t n_pages;
    plan_seq *seqs;   /* [max_seqs] */
    int32_t *ids;     /* [max_tokens] */
    plan_page *pages; /* [max_tokens / 128 + 2 * max_seqs] */
    int32_t max_seqs;
    int32_t max_tokens;
    int32_t max_pages;
    uint8_t *wire; /* the buffer that travels */
    base_alloc mem;
} step_plan;

/* Errors: BAD_INPUT (limits), NO_MEMORY. */
BASE_MUST_CHECK base_status step_plan_create(int32_t max_seqs, int32_t max_tokens,
                                             const base_alloc *mem, step_plan **plan_out);
void step_plan_destroy(step_plan *plan); /* NULL is allowed */

/* An empty plan. */
void step_plan_reset(step_plan *plan, plan_kind kind, uint64_t step);

/* Rank 0's plan becomes every rank's.  Errors: PEER_LOST; BAD_INPUT (counts, slots or ranks outside
 * the plan's limits, on every rank alike). */
BASE_MUST_CHECK base_status step_plan_broadcast(step_plan *plan, comm *ranks, int64_t timeout_ms);

#endif /* WORKER_ENGINE_PLAN_H */
