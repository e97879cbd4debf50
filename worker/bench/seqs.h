/* worker/bench/seqs.h - sequences of a benchmark on one rank: as many slots, each with blocks on every rank in turn, and
 * decode steps of all of them.
 *
 * A sequence is laid out, not computed: its pages hold what memory held, which costs a step the same.
 * Threads.  The one of the step loop. */
#ifndef WORKER_BENCH_SEQS_H
#define WORKER_BENCH_SEQS_H

#include "base/status.h"
#include "kvshard/shard.h"
#include "worker/model/forward.h"

#include <stdint.h>

#define BENCH_MAX_BATCH 256

typedef struct bench_seqs {
    kv_shard *shard; /* borrowed; made with bench_seqs_options */
    int32_t
        n_pages; /* of the shard; where the sequences have more blocks, pages are theirs again and again */
    int32_t rank, n_ranks;
    int32_t batch;
    int64_t positions[BENCH_MAX_BATCH]; /* of each sequence: where its next token goes */
    int32_t n_blocks[BENCH_MAX_BATCH];  /* that each has so far, on all ranks */
} bench_seqs;

/* Of a shard that holds a rank's part of batch sequences of n_tokens. */
kv_shard_options bench_seqs_options(int32_t batch, int32_t n_ranks, int64_t n_tokens,
                                    int32_t max_step_tokens);

/* The pages of a slot's next n_tokens, which a step then has.  Errors: those of kv_shard_add_page. */
BASE_MUST_CHECK base_status bench_seqs_grow(bench_seqs *s, int32_t slot, int32_t n_tokens);

/* Its sequence begins again, with no page. */
void bench_seqs_clear(bench_seqs *s, int32_t slot);

/* n_tokens more for every slot, at most chunk in a step.  Errors: those of the shard. */
BASE_MUST_CHECK base_status bench_seqs_lay_out(bench_seqs *s, int64_t n_tokens, int32_t chunk);

/* n_steps decode steps of all slots as the engine runs them: a step makes its tokens, greedy.  Collective.
 *   f        with max_step_tokens, max_samples and n_slots of the batch
 *   n_ahead  1: a step is given to the device while the one before runs; 0: when that has ended (engine.h)
 *   us_out   [n_steps]  from the end of the step before to its own
 * Errors: those of forward and shard. */
BASE_MUST_CHECK base_status bench_seqs_decode(bench_seqs *s, forward *f, int32_t n_steps,
                                              int32_t n_ahead, double *us_out);

#endif /* WORKER_BENCH_SEQS_H */
