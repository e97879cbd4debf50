/* coordinator/state.h - what the files of the coordinator share; nobody else includes it.
 *
 * One mutex guards everything that changes.  No tokeniser, codec of client messages or wait runs
 * under it; sends do not block, so they may.  Order of locks: this mutex, then those inside rpc. */
#ifndef COORDINATOR_STATE_H
#define COORDINATOR_STATE_H

#include "coordinator/admission.h"
#include "coordinator/coordinator.h"
#include "coordinator/groups.h"
#include "coordinator/model.h"
#include "coordinator/request.h"
#include "proto/rpc.h"

#include <pthread.h>

#define COORD_MAX_GROUPS 64
#define COORD_CLIENT_QUEUED \
    (COORD_WINDOW + 64)          /* events of one call: a window, progress, the end */
#define COORD_GROUP_QUEUED 16384 /* commands to one group */

typedef enum coord_end {
    COORD_END_FINISHED,
    COORD_END_CANCELLED, /* the client went away or its deadline passed */
    COORD_END_REFUSED,
    N_COORD_ENDS,
} coord_end;

struct coordinator {
    base_alloc mem;
    int64_t wait_for_group_us;
    rpc_server *clients; /* set before and freed after everything that uses it */
    rpc_server *attach;

    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t wake;   /* of the timer */
    pthread_t timer;
    bool timer_runs;
    bool stopping;
    bool draining;
    coord_model *model; /* NULL until the first group; then it stays, and may be read unlocked */
    coord_group *groups;
    int32_t n_groups;
    int64_t last_loss_us; /* when the number of groups last fell */
    coord_queue queue;
    int32_t n_live;
    int64_t n_ended[N_COORD_ENDS];
};

/* ---- coordinator.c ---- */

void coord_lock(coordinator *c);
void coord_unlock(coordinator *c);

/* ---- relay.c: all with the mutex held ---- */

/* The room of every group, in their order; returns how many. */
int32_t coord_rooms(const coordinator *c, coord_room rooms_out[COORD_MAX_GROUPS]);
/* Sends requests that wait to groups that have room. */
void coord_dispatch(coordinator *c);
/* Takes a message of an attached group.  Errors: BAD_INPUT (the group breaks the protocol). */
BASE_MUST_CHECK base_status coord_take_up(coordinator *c, coord_group *group, const group_up *up);
/* The client's queue has run empty. */
void coord_take_drained(coordinator *c, coord_request *request);
/* Ends a request: away from queue and group, status to the client, freed. */
void coord_end_request(coordinator *c, coord_request *request, coord_end end, rpc_code code,
                       const char *text);
/* Removes a group, ends its stream with a status, and frees it; its sequences go back to the queue. */
void coord_lose_group(coordinator *c, coord_group *group, rpc_code code, const char *why);
/* Finishes stopped requests whose Ended did not come. */
void coord_finish_stopped(coordinator *c, coord_group *group, int64_t now_us);
/* Sends a command to a group.  Errors: as rpc_call_send, and the codec's. */
BASE_MUST_CHECK base_status coord_send_down(coordinator *c, coord_group *group,
                                            const group_down *down);

/* ---- the services: rows for rpc_server_create ---- */

#define COORD_N_INFERENCE_METHODS 4
void coord_inference_methods(coordinator *c, rpc_method methods_out[COORD_N_INFERENCE_METHODS]);
rpc_method coord_group_method(coordinator *c);

#endif /* COORDINATOR_STATE_H */
