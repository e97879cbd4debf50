/* worker/engine/pace.h - how long steps take, and what follows: the deadline of the next one, and how many
 * prompt tokens it may hold.  Pure.
 *
 * A step of a block (128 tokens) or more costs by the token; a smaller one costs about what reading the
 * weights does, whatever it holds.  Where ranks share the rows of long steps (worker/model/rows.h) a token of these costs less,
 * by up to as many times as there are ranks.  So the three are noted apart.
 * Deadlines err towards patience: their estimate rises at once and falls slowly, but for the first step of a kind, which
 * also loads kernels and reads weights: the second takes its place.  Sizes follow the latest steps, and not the very
 * first one; where shared steps were too long to fit, one is tried again now and then, for what they took may be long past. */
#ifndef WORKER_ENGINE_PACE_H
#define WORKER_ENGINE_PACE_H

#include <stdint.h>

#define PACE_TRY_AGAIN 32 /* large steps */

typedef struct step_kind { /* patient */
    double us;
    int64_t n_steps; /* 0: none yet, and us is 0 */
} step_kind;

typedef struct step_pace {      /* what steps took is 0: nothing is known */
    int32_t shared_from;        /* tokens of the shortest step that ranks share; 0: there is none */
    int32_t n_ranks;            /* that share it */
    step_kind small;            /* below a block: us of a step */
    step_kind large;            /* the others: us of a token */
    step_kind shared;           /* those that ranks share: the same */
    double latest_us_per_token; /* of large ones, for sizes; 0: none yet */
    double latest_us_of_a_shared; /* the same of shared ones */
    int32_t n_not_shared;         /* large steps since the last shared one */
} step_pace;

/* A step of n_tokens (> 0) took us. */
void pace_note(step_pace *p, int64_t us, int32_t n_tokens);

/* How long a step of n_tokens (> 0) may take, and an exchange within it: ENGINE_MIN_STEP_MS or four times what the step is
 * expected to; ENGINE_STEP_MS while nothing is known. */
int64_t pace_deadline_ms(const step_pace *p, int32_t n_tokens);

/* How long a GPU's kernel waits for a peer in a step with that deadline, if it can give up by itself and say who was
 * missing: less, so that whoever is lost while the step takes what it should is named before the step is overdue. */
int64_t pace_wait_ms(int64_t deadline_ms);

/* Tokens of prompts for a step with n_decoding other tokens: as many blocks as are expected to take goal_ms
 * with them, at least one, at most prefill_chunk (a multiple of 128); prefill_chunk while nothing is
 * known, or when goal_ms is 0.  After PACE_TRY_AGAIN large steps that were not shared: the least that are. */
int32_t pace_chunk(const step_pace *p, int32_t n_decoding, int64_t goal_ms, int32_t prefill_chunk);

#endif /* WORKER_ENGINE_PACE_H */
