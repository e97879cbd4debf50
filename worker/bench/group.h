/* worker/bench/group.h - one rank of a group that a benchmark runs decode steps on: seat, model, weights, transports.
 *
 * Opened as a worker opens it (seats.h decides), without a coordinator and without a cache.
 * Threads.  main's. */
#ifndef WORKER_BENCH_GROUP_H
#define WORKER_BENCH_GROUP_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "worker/boot/boot_mpi.h"
#include "worker/boot/seats.h"
#include "worker/model/model.h"

#include <stdint.h>

typedef struct bench_group_options {
    const char *model;
    seat_wishes wishes; /* split_weights too: each rank then holds its part of the model */
    int32_t batch;      /* of the steps to come */
    int32_t n_threads;  /* 0: cores / ranks of this host */
} bench_group_options;

typedef struct bench_group {
    boot_world world;
    comm *ranks;   /* over the host's memory */
    comm *tensors; /* the same, or over the GPUs' */
    seat_plan seat;
    kern_ctx *ctx;
    model *model;         /* or this rank's part of it; bound to ctx */
    char gpu[128];        /* its name; empty on CPUs */
    double read_gb;       /* GB/s that the GPU reads its memory with; 0 on CPUs */
    int64_t weight_bytes; /* of the rank that holds most */
    int64_t room_bytes;   /* of the rank that has least: for cache and scratch, beside weights and
                             transports, as a worker takes it */
} bench_group;

/* Collective.  Errors: those of the parts; the process then ends. */
BASE_MUST_CHECK base_status bench_group_open(const bench_group_options *options,
                                             const boot_world *world, bench_group *g);
void bench_group_close(bench_group *g);

#endif /* WORKER_BENCH_GROUP_H */
