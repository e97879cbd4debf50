/* worker/bench/prefill.h - a prompt on a group's ranks, timed: chunks of it at several positions, or all of them.
 *
 * A chunk is a step of random ids that makes no token.  What lies before one that is timed at a position is not computed: its
 * pages are those of the first chunk, which is, again and again.  So attention reads numbers as in a prompt, which take a GPU's
 * power as a prompt's do, and as many pages; that they lie in less memory is no part of a chunk's time that shows.
 * Collective.  Ranks begin together, and a time is the largest of all ranks.
 * Threads.  The one of the step loop. */
#ifndef WORKER_BENCH_PREFILL_H
#define WORKER_BENCH_PREFILL_H

#include "kvshard/format.h"
#include "worker/bench/chunks.h"
#include "worker/bench/group.h"
#include "worker/bench/parts.h"

typedef struct bench_prompt { /* borrows all */
    const bench_group *group;
    const kv_format *format;
    const bench_chunks *chunks;
} bench_prompt;

/* That a rank takes for a cache of the whole prompt and a step of one chunk. */
int64_t bench_prompt_bytes(const bench_prompt *p);

/* ms_out [chunks->n_timed].  Errors, here and below: those of shard and forward, PEER_LOST. */
BASE_MUST_CHECK base_status bench_prompt_time(const bench_prompt *p, double *ms_out);

/* The same chunks op by op, each op waited for: ms_out [chunks->n_timed][BENCH_N_PARTS]. */
BASE_MUST_CHECK base_status bench_prompt_time_parts(const bench_prompt *p, double *ms_out);

/* Every chunk of the prompt, computed, launched as the engine does: one begins while the one before runs. */
BASE_MUST_CHECK base_status bench_prompt_time_whole(const bench_prompt *p, double *ms_out);

#endif /* WORKER_BENCH_PREFILL_H */
