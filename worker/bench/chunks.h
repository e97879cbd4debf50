/* worker/bench/chunks.h - which chunks of a prompt are timed, and what all of them take by these.
 *
 * What a chunk takes grows with its position in a straight line: products are the same everywhere, and attention is as long as
 * what lies before.  So of the whole chunks five are timed, the first and the last among them, and the others lie on the line
 * between their neighbours.  A shorter chunk at the end is timed too.  Pure. */
#ifndef WORKER_BENCH_CHUNKS_H
#define WORKER_BENCH_CHUNKS_H

#include "base/status.h"

#include <stdint.h>

#define BENCH_MAX_CHUNK 8192
#define BENCH_MAX_TIMED 6

typedef struct bench_chunks {
    int64_t n_tokens; /* of the prompt */
    int32_t chunk;
    int32_t n_timed;
    int64_t begins[BENCH_MAX_TIMED]; /* of those that are timed, ascending */
} bench_chunks;

/* What --prefill-chunk may be.  Errors: BAD_INPUT. */
BASE_MUST_CHECK base_status bench_chunks_check(int32_t chunk);

/* n_tokens and chunk are 1 or more. */
bench_chunks bench_chunks_of(int64_t n_tokens, int32_t chunk);

/* Of the i-th that is timed. */
int32_t bench_chunks_tokens(const bench_chunks *c, int32_t i);

/* Of all chunks of the prompt; times [n_timed]. */
double bench_chunks_total(const bench_chunks *c, const double *times);

#endif /* WORKER_BENCH_CHUNKS_H */
