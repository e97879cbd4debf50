/* coordinator/admission.h - the bounded queue in which requests wait for a group.
 *
 * First come, first served: the oldest request that some group could ever hold goes first, and
 * nobody overtakes it, so long requests do not starve.  A request that comes back (its group was
 * full or is lost) takes its old place in the order.
 *
 * Pure: time and room are parameters.  Tickets are members of the requests; the queue owns nothing.
 * Threads.  One at a time (the coordinator's mutex). */
#ifndef COORDINATOR_ADMISSION_H
#define COORDINATOR_ADMISSION_H

#include "base/status.h"
#include "coordinator/placement.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct coord_ticket coord_ticket;
struct coord_ticket {
    int64_t n_tokens;    /* what the sequence may grow to */
    int64_t deadline_us; /* base_now_us() time; INT64_MAX: none */
    /* Set by the queue: */
    int64_t since_us; /* when it was added or came back */
    uint64_t order;   /* of arrival; 0 before the first add */
    bool waiting;
    coord_ticket *prev;
    coord_ticket *next;
};

typedef struct coord_queue {
    coord_ticket *first;
    coord_ticket *last;
    int32_t n_waiting;
    int32_t max_waiting;
    uint64_t last_order;
} coord_queue;

void coord_queue_init(coord_queue *queue, int32_t max_waiting);

/* Adds a new ticket at the end.  Errors: EXHAUSTED (max_waiting wait). */
BASE_MUST_CHECK base_status coord_queue_add(coord_queue *queue, coord_ticket *ticket,
                                            int64_t now_us);
/* Puts an old ticket back where its arrival belongs; never refused, as it was accepted before. */
void coord_queue_return(coord_queue *queue, coord_ticket *ticket, int64_t now_us);
void coord_queue_remove(coord_queue *queue, coord_ticket *ticket); /* waiting or not */

/* Who goes next and where; NULL: nobody now.  The ticket stays in the queue. */
coord_ticket *coord_queue_next(const coord_queue *queue, const coord_room *rooms, int32_t n_rooms,
                               coord_place *place_out);

/* The oldest ticket whose deadline has passed, or NULL. */
coord_ticket *coord_queue_expired(const coord_queue *queue, int64_t now_us);
/* The oldest ticket that no group could ever hold and that has waited for one for wait_us, counted
 * from floor_us (when the last group went) at the earliest; NULL: none. */
coord_ticket *coord_queue_stranded(const coord_queue *queue, const coord_room *rooms,
                                   int32_t n_rooms, int64_t floor_us, int64_t now_us,
                                   int64_t wait_us);

#endif /* COORDINATOR_ADMISSION_H */
