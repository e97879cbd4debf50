/* coordinator/coordinator.h - the coordinator: two servers, the attached groups and the requests.
 *
 * The client port serves ropewalk.v1.Inference, health and reflection; the attach port serves
 * ropewalk.v1.Group.  Health says SERVING while a group is attached and no drain has begun.
 *
 * It outlives its groups: when one is lost, its sequences wait in their old order and are replayed on
 * the next group of the same model and policy; their clients' streams just go on.
 *
 * Threads.  Any thread may call; rpc_init comes first. */
#ifndef COORDINATOR_COORDINATOR_H
#define COORDINATOR_COORDINATOR_H

#include "base/alloc.h"
#include "base/status.h"

#include <stdint.h>

#define COORD_MAX_WAITING 65536

typedef struct coord_options {
    const char *listen;        /* for clients, "HOST:PORT"; port 0 takes a free one */
    const char *attach;        /* for groups */
    int32_t max_waiting;       /* requests that may wait, 1..COORD_MAX_WAITING */
    int64_t wait_for_group_ms; /* how long accepted requests wait while no group is there, >= 0 */
} coord_options;

typedef struct coordinator coordinator;

/* Listens and serves at once.  mem is copied; all threads use it.
 * Errors: BAD_INPUT (an option, named), IO (an address cannot be had), NO_MEMORY. */
BASE_MUST_CHECK base_status coordinator_create(const coord_options *options, const base_alloc *mem,
                                               coordinator **coordinator_out);
int32_t coordinator_listen_port(const coordinator *c);
int32_t coordinator_attach_port(const coordinator *c);

/* From now on new requests are refused with UNAVAILABLE; accepted ones go on. */
void coordinator_drain(coordinator *c);
/* Accepted requests that have not ended. */
int32_t coordinator_live_requests(coordinator *c);

/* Ends what still runs with UNAVAILABLE, closes both ports, frees.  Blocks at most 6 s.
 * NULL is allowed. */
void coordinator_destroy(coordinator *c);

#endif /* COORDINATOR_COORDINATOR_H */
