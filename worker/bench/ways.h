/* worker/bench/ways.h - the transports that can be timed: a line each. */
#ifndef WORKER_BENCH_WAYS_H
#define WORKER_BENCH_WAYS_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/device.h"
#include "worker/bench/chain.h"

#include <stdbool.h>

typedef struct way_place { /* of this rank; borrowed, and ends after the comm */
    kern_ctx *ctx;
    comm *host;
    int32_t head_dim, max_rows;
    const char *who; /* "rank 2" */
    bool shared_gpu; /* there are more ranks than GPUs */
} way_place;

typedef struct way {
    const char *name;
    kern_device device; /* whose tensors it takes */
    bool gathers;       /* it has an all-gather and a sum to time alone */
    chain_link merges;  /* how its partials are merged */
    /* Collective.  Errors: UNAVAILABLE, BAD_INPUT: not here, and why; others as the transport's. */
    base_status (*open)(const way_place *place, const base_alloc *mem, comm **comm_out);
} way;

extern const way ways[];
extern const int32_t n_ways;

#endif /* WORKER_BENCH_WAYS_H */
