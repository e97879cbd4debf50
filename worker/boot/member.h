/* worker/boot/member.h - one rank of a group, up to what its steps need: seat, part of the weights, context and transports.
 *
 * All calls but member_end are collective, in this order.  A member that has failed is ended, or the process is.
 * Threads.  main's. */
#ifndef WORKER_BOOT_MEMBER_H
#define WORKER_BOOT_MEMBER_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "worker/boot/boot_mpi.h"
#include "worker/boot/seats.h"
#include "worker/model/model.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct member { /* zeroed: not there */
    boot_world world;
    seat_wishes wishes;
    comm *ranks;   /* over the host's memory */
    comm *tensors; /* the same, or over the GPUs' */
    seat_plan seat;
    bool splits;  /* the ranks share the weights */
    model *model; /* or this rank's part of it */
    kern_ctx *ctx;
    int32_t n_threads; /* of ctx, on CPUs */
} member;

/* wishes: their texts are borrowed.  Errors: those of seats_agree, PEER_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status member_meet(member *m, const boot_world *world,
                                        const seat_wishes *wishes);

/* The model without weights (model_read), the same on all ranks.  rope_text may be empty.
 * Errors: those of model_read, BAD_INPUT (another rank has another), PEER_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status member_read(member *m, const char *folder, base_view rope_text);

/* Whether the ranks share the weights, which are then loaded; rank 0's log says why.
 *   cache_bytes  the least of cache and scratch that is of use
 *   fraction     of the free memory (room.h)
 * Errors: those of room_measure, choice_of_weights and model_load, PEER_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status member_load(member *m, int64_t cache_bytes, double fraction);

typedef struct member_lines { /* what member_connect needs beside the member */
    int32_t n_threads;        /* of a context on CPUs; 0: cores / ranks of this host */
    int32_t max_rows;         /* these: transport.h */
    int32_t max_words;
    int64_t limit_ms;
    bool shared_gpu;
    bool or_less; /* auto has it in any case */
} member_lines;

/* The context, and the comm of tensors; rank 0's log says why this one.
 * Errors: those of kern_ctx_create_*, choice_of_merge and transport_open. */
BASE_MUST_CHECK base_status member_connect(member *m, const member_lines *lines);

void member_end(member *m);

#endif /* WORKER_BOOT_MEMBER_H */
