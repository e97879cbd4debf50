/* worker/boot/room.h - the memory that the ranks of a host or of a GPU may take, and each one's share. */
#ifndef WORKER_BOOT_ROOM_H
#define WORKER_BOOT_ROOM_H

#include "base/status.h"
#include "worker/boot/seats.h"

#include <stdint.h>

/* Of the free memory, for all ranks of a host or GPU together, where nobody says otherwise. */
#define ROOM_HOST_FRACTION 0.3
#define ROOM_GPU_FRACTION  0.9

typedef struct room {
    int64_t free_bytes; /* when it was measured */
    int32_t n_sharing;  /* ranks that take of it */
    double fraction;    /* of what is free beside weights, for caches and scratch */
} room;

/* Of the GPU that the plan has, or of the host; fraction 0: the usual one.  Errors: IO, DEVICE_LOST. */
BASE_MUST_CHECK base_status room_measure(const seat_plan *plan, const boot_world *world,
                                         double fraction, room *room_out);

/* Bytes of a rank for cache and scratch, when each that shares the room has n_bytes of weights to take that it had not when the
 * room was measured.  Below 0: there is not so much.  Pure. */
int64_t room_beside(const room *r, int64_t n_bytes);

#endif /* WORKER_BOOT_ROOM_H */
