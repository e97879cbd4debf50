/* worker/engine/pace.h - how long steps take, and what follows: the deadline of the next one, and how many
 * prompt tokens it may hold.  Pure.
 *
 * A step of a block (128 tokens) or more costs by the token; a smaller one costs about what reading the
 * weights does, whatever it holds.  So the two are noted apart.
 * Deadlines err towards patience: their estimate rises at once and falls slowly.  Sizes follow the latest steps,
 * and not the very first one, which also reads the weights from disk. */
#ifndef WORKER_ENGINE_PACE_H
#define WORKER_ENGINE_PACE_H

#include <stdint.h>

typedef struct step_pace {      /* zeroed: nothing is known */
    double small_us;            /* of a step below a block; 0: none yet, like the next two */
    double us_per_token;        /* of the others */
    double latest_us_per_token; /* of the others, for sizes */
    int64_t n_steps;
} step_pace;

/* A step of n_tokens (> 0) took us. */
void pace_note(step_pace *p, int64_t us, int32_t n_tokens);

/* How long an exchange within a step of n_tokens (> 0) may take: ENGINE_MIN_STEP_MS or four times what the whole
 * step is expected to; ENGINE_STEP_MS while nothing is known. */
int64_t pace_deadline_ms(const step_pace *p, int32_t n_tokens);

/* Tokens of prompts for a step with n_decoding other tokens: as many blocks as are expected to take goal_ms
 * with them, at least one, at most prefill_chunk (a multiple of 128); prefill_chunk while nothing is
 * known, or when goal_ms is 0. */
int32_t pace_chunk(const step_pace *p, int32_t n_decoding, int64_t goal_ms, int32_t prefill_chunk);

#endif /* WORKER_ENGINE_PACE_H */
