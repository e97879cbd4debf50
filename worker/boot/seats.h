/* worker/boot/seats.h - where each rank sits: its host and its GPU, and so what the group computes on.
 *
 * One process per GPU: a rank takes the visible GPU of its number among the ranks of its host, counted round where a
 * launcher shows each rank its own alone.  All ranks see all seats and come to the same decision. */
#ifndef WORKER_BOOT_SEATS_H
#define WORKER_BOOT_SEATS_H

#include "base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/device.h"
#include "worker/boot/boot_mpi.h"

#include <stdbool.h>
#include <stdint.h>

#define SEAT_TEXT 64

typedef struct seat { /* of one rank; plain bytes, zeroed where a text ends early */
    char host[SEAT_TEXT];
    char device[SEAT_TEXT];  /* of --device; empty: the group may choose */
    char merge[SEAT_TEXT];   /* of --merge */
    char weights[SEAT_TEXT]; /* of --weights */
    char gpu_name[SEAT_TEXT];
    char gpu_uuid[SEAT_TEXT];
    int32_t gpu;      /* its number here; -1: no GPU is visible */
    int32_t gpu_fits; /* 1: the kernels are for it */
    int32_t build_has_cuda;
    int32_t shared; /* 1: --share-gpu */
} seat;

typedef struct seat_wishes { /* of the command line */
    const char *device;      /* NULL: none */
    const char *merge;       /* these two are choice.h's matter: here ranks are to have the same */
    const char *weights;
    bool share_gpu;
} seat_wishes;

/* What the ranks decide.  `who` names the own rank in errors. */
typedef struct seat_plan {
    kern_device device;
    int32_t gpu;
    int32_t n_sharing; /* ranks of the group on this GPU, this one included; 1 on CPUs */
    bool own_gpus;     /* every rank of the group computes on a GPU of its own */
    bool one_host;     /* all ranks are on one */
    char who[3 * SEAT_TEXT];
} seat_plan;

/* This rank's.  Errors: DEVICE_LOST. */
BASE_MUST_CHECK base_status seat_take(const boot_world *world, const seat_wishes *wishes,
                                      seat *seat_out);

/* Pure: what rank `own` of n does.  Without --device the group computes on GPUs where every rank has one for itself.
 * Errors, on every rank alike: BAD_INPUT naming rank, host and GPU. */
BASE_MUST_CHECK base_status seats_decide(const seat *seats, int32_t n, int32_t own,
                                         seat_plan *plan_out);

/* Collective: takes the seat, shows it to all, decides.  Errors: as above, PEER_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status seats_agree(comm *ranks, const boot_world *world,
                                        const seat_wishes *wishes, seat_plan *plan_out);

#endif /* WORKER_BOOT_SEATS_H */
