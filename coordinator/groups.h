/* coordinator/groups.h - one attached group: what it has, and which sequences it works on.
 *
 * A slot is one sequence of the group, from Admit until its Ended or Refused: also after a Cancel, as
 * rank 0 still has it.  A seq number holds its slot and is never used twice on one stream.
 *
 * Free blocks are an estimate: what the latest Load said, less what was sent and is not yet answered.
 *
 * Pure but for the call it keeps a reference of; time is a parameter.
 * Threads.  One at a time (the coordinator's mutex). */
#ifndef COORDINATOR_GROUPS_H
#define COORDINATOR_GROUPS_H

#include "base/alloc.h"
#include "base/status.h"
#include "coordinator/placement.h"
#include "proto/group_codec.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stdint.h>

#define COORD_MAX_SLOTS  4096 /* of one group */
#define COORD_SILENCE_US 2000000
#define COORD_PING_US    400000 /* the peer wants one each 500 ms */

typedef struct coord_request coord_request;

typedef struct coord_slot {
    uint64_t seq;           /* 0: free */
    coord_request *request; /* NULL: nobody listens any more */
    bool answered;          /* Admitted came, so Load counts its blocks */
    int32_t start_rank;
    int32_t n_blocks; /* that the sequence may grow to */
} coord_slot;

typedef enum coord_group_gate {
    COORD_GATE_OPEN,
    COORD_GATE_REFUSED, /* it refused one; no Load since */
    COORD_GATE_FULL,    /* a Load came; the next one with more room opens */
} coord_group_gate;

typedef struct coord_group coord_group;
struct coord_group {
    coord_group *next; /* in the order of attaching */
    rpc_call *call;    /* one reference; NULL in unit tests */
    int32_t ranks;
    int64_t max_context;
    int64_t *blocks_total; /* [ranks] */
    int64_t *blocks_said;  /* [ranks] free, as the latest Load has it */
    int64_t *blocks_free;  /* [ranks] the estimate */
    int32_t *counts;       /* [ranks] scratch */
    int64_t *weight_bytes; /* [ranks] */
    char *exchange;        /* the name of its transport */
    coord_group_gate gate;
    int32_t running, waiting; /* as the latest Load has it */
    int64_t heard_us;         /* last message from it */
    int64_t pinged_us;
    coord_slot *slots; /* [n_slots] */
    int32_t n_slots;   /* min(max_batch, COORD_MAX_SLOTS) */
    int32_t n_open;    /* slots in use */
    uint64_t n_admits; /* counts up, for seq; starts at the time */
    base_alloc mem;
};

/* All blocks count as free until the first Load.  call is referenced.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status coord_group_create(const group_hello *hello, rpc_call *call,
                                               int64_t now_us, const base_alloc *mem,
                                               coord_group **group_out);
void coord_group_destroy(coord_group *group); /* NULL is allowed */

/* Its room for the placement; borrows the estimate. */
coord_room coord_group_room(const coord_group *group);

/* Opens a slot for a request and takes its blocks off the estimate.  One must be free. */
coord_slot *coord_group_open_slot(coord_group *group, coord_request *request, int32_t start_rank,
                                  int64_t n_tokens);
coord_slot *coord_group_find(coord_group *group, uint64_t seq); /* NULL: no such sequence */
void coord_group_close_slot(coord_group *group, coord_slot *slot);

/* Admitted: rank 0 chose this start rank.  Errors: BAD_INPUT (not a rank of the group). */
BASE_MUST_CHECK base_status coord_group_take_admitted(coord_group *group, coord_slot *slot,
                                                      int32_t start_rank);
/* Refused for now: the gate closes until a Load shows more room than the one before it, or that
 * nothing runs. */
void coord_group_take_refusal(coord_group *group);
/* Errors: BAD_INPUT (as many counts as ranks are wanted). */
BASE_MUST_CHECK base_status coord_group_take_load(coord_group *group, const group_up *load);

bool coord_group_is_silent(const coord_group *group, int64_t now_us);

#endif /* COORDINATOR_GROUPS_H */
