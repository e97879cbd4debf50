/* worker/bench/ways.h - the transports that `bench merge` times: a line each. */
#ifndef WORKER_BENCH_WAYS_H
#define WORKER_BENCH_WAYS_H

#include "kernels/device.h"
#include "worker/bench/chain.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct way {
    const char *name;
    const char *transport; /* of transport.h */
    kern_device device;    /* whose tensors it takes */
    bool gathers;          /* it has an all-gather and a sum to time alone */
    chain_link merges;     /* how its partials are merged */
} way;

extern const way ways[];
extern const int32_t n_ways;

#endif /* WORKER_BENCH_WAYS_H */
