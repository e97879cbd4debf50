/* worker/bench/chain.h - exchanges of a decode step, one waiting for the last, timed.
 *
 * A chain is `length` links: an exchange of this rank's rows and a norm that makes the next rows of what came, as in a
 * layer what follows attention does.  So no exchange begins before the last one's result is there, which back-to-back
 * collectives hide.
 * Threads.  The one of the comms. */
#ifndef WORKER_BENCH_CHAIN_H
#define WORKER_BENCH_CHAIN_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/kern.h"

#include <stdbool.h>
#include <stdint.h>

#define CHAIN_HEAD_DIM 128
#define CHAIN_MAX_RUNS 400

typedef enum chain_link {
    CHAIN_NOTHING, /* the norm alone: what is to be taken off the others */
    CHAIN_BARE,    /* an all-gather of the partials */
    CHAIN_MERGE,   /* the partials, merged */
    CHAIN_MERGE_OWN, /* each rank's share of the rows of all partials, merged there: a token of as many heads */
    CHAIN_SUM, /* of the rows, over ranks: what follows a product whose weights are split */
    CHAIN_N_LINKS
} chain_link;

/* "nothing", "bare", "merge", for either kind of merge, "sum" */
const char *chain_link_name(chain_link link);
/* Of what a rank brings. */
int64_t chain_link_bytes(chain_link link, int32_t rows);

typedef struct chain_options {
    kern_ctx *ctx;
    comm *host;    /* over which ranks meet, and tell their times */
    comm *tensors; /* the transport; NULL: nothing is exchanged */
    int32_t max_rows;
    int32_t length;
    double seconds; /* of measuring, about, for each chain */
} chain_options;

typedef struct chain chain;

/* Collective.  Everything is borrowed.  Errors: NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status chain_create(const chain_options *options, const base_alloc *mem,
                                         chain **chain_out);
void chain_destroy(chain *c); /* NULL is allowed */

typedef struct chain_times { /* of one link, microseconds; each the largest of all ranks */
    double p50_us, p99_us;   /* over runs of the chain */
    int32_t n_runs;
} chain_times;

/* Collective.  graph: the chain is recorded and run again, on a GPU.
 * Errors: those of the exchange, DEVICE_LOST, PEER_LOST. */
BASE_MUST_CHECK base_status chain_time(chain *c, chain_link link, int32_t rows, bool graph,
                                       chain_times *times_out);

#endif /* WORKER_BENCH_CHAIN_H */
