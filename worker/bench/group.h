/* worker/bench/group.h - one rank of a group that a benchmark runs steps on: a member, and what it has room for.
 *
 * Opened as a worker opens it (member.h), without a coordinator and without a cache.
 * Threads.  main's. */
#ifndef WORKER_BENCH_GROUP_H
#define WORKER_BENCH_GROUP_H

#include "worker/boot/member.h"

#define BENCH_TIMEOUT_MS 60000 /* of an exchange: ranks may share a GPU, and then take turns */

typedef struct bench_group_options {
    const char *model;
    seat_wishes wishes;
    int32_t batch;     /* of the steps to come */
    int32_t n_threads; /* 0: cores / ranks of this host */
} bench_group_options;

typedef struct bench_group {
    member m;             /* its model is bound to its context */
    char gpu[128];        /* its name; empty on CPUs */
    double read_gb;       /* GB/s that the GPU reads its memory with; 0 on CPUs */
    int64_t weight_bytes; /* of the rank that holds most */
    int64_t room_bytes;   /* of the rank that has least: for cache and scratch, beside weights and
                             transports, as a worker takes it */
} bench_group;

/* Collective.  Errors: those of the parts; the process then ends. */
BASE_MUST_CHECK base_status bench_group_open(const bench_group_options *options,
                                             const boot_world *world, bench_group *g);
/* Collective: each of values [n] becomes the largest of all ranks.  Errors: PEER_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status bench_group_largest(const bench_group *g, double *values, int32_t n);
/* Collective, as closing transports is: not where a rank failed alone, since its peers wait elsewhere. */
void bench_group_close(bench_group *g);

#endif /* WORKER_BENCH_GROUP_H */
