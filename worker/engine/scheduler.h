/* worker/engine/scheduler.h - which sequences run in the next step, and how far.  Pure.
 *
 *   1. Every sequence whose prompt is in the cache makes its next token.
 *   2. Then prompts, in order of arrival, up to prefill_chunk tokens in all.  A part of a prompt ends at
 *      a multiple of 128, its last part where the prompt ends.
 * A sequence without credit waits where it would make a token.  A prompt whose turn brings less than a
 * whole block waits too; it is the first one of the next step, so nobody starves. */
#ifndef WORKER_ENGINE_SCHEDULER_H
#define WORKER_ENGINE_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sched_seq {
    int64_t position; /* tokens that are in the cache */
    int64_t n_prompt;
    bool has_credit;
} sched_seq;

typedef struct sched_pick {
    int32_t seq; /* index into seqs */
    int32_t n_tokens;
    bool samples; /* makes a token */
} sched_pick;

/* seqs [n_seqs] in order of arrival; prefill_chunk a multiple of 128, at least 128; picks_out [n_seqs].
 * Returns the number of picks: each sequence at most once. */
int32_t scheduler_choose(const sched_seq *seqs, int32_t n_seqs, int32_t prefill_chunk,
                         sched_pick *picks_out);

#endif /* WORKER_ENGINE_SCHEDULER_H */
