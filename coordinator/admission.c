#include "coordinator/admission.h"

#include <stddef.h>

void coord_queue_init(coord_queue *queue, int32_t max_waiting)
{
    *queue = (coord_queue){.max_waiting = max_waiting};
}

static void insert_after(coord_queue *queue, coord_ticket *prev, coord_ticket *ticket,
                         int64_t now_us)
{
    coord_ticket *next = prev == NULL ? queue->first : prev->next;
    ticket->prev = prev;
    ticket->next = next;
    *(prev == NULL ? &queue->first : &prev->next) = ticket;
    *(next == NULL ? &queue->last : &next->prev) = ticket;
    ticket->waiting = true;
    ticket->since_us = now_us;
    queue->n_waiting++;
}

base_status coord_queue_add(coord_queue *queue, coord_ticket *ticket, int64_t now_us)
{
    if (queue->n_waiting >= queue->max_waiting) {
        return BASE_EXHAUSTED;
    }
    ticket->order = ++queue->last_order;
    insert_after(queue, queue->last, ticket, now_us);
    return BASE_OK;
}

void coord_queue_return(coord_queue *queue, coord_ticket *ticket, int64_t now_us)
{
    coord_ticket *prev = NULL; /* searched from the front: who comes back is old */
    for (coord_ticket *t = queue->first; t != NULL && t->order < ticket->order; t = t->next) {
        prev = t;
    }
    insert_after(queue, prev, ticket, now_us);
}

void coord_queue_remove(coord_queue *queue, coord_ticket *ticket)
{
    if (!ticket->waiting) {
        return;
    }
    *(ticket->prev == NULL ? &queue->first : &ticket->prev->next) = ticket->next;
    *(ticket->next == NULL ? &queue->last : &ticket->next->prev) = ticket->prev;
    ticket->prev = NULL;
    ticket->next = NULL;
    ticket->waiting = false;
    queue->n_waiting--;
}

coord_ticket *coord_queue_next(const coord_queue *queue, const coord_room *rooms, int32_t n_rooms,
                               coord_place *place_out)
{
    for (coord_ticket *t = queue->first; t != NULL; t = t->next) {
        switch (coord_placement_choose(rooms, n_rooms, t->n_tokens, place_out)) {
        case COORD_FIT_NOW: return t;
        case COORD_FIT_LATER: return NULL; /* nobody overtakes it */
        case COORD_FIT_NEVER: break;       /* waits for a longer group; blocks nobody */
        }
    }
    return NULL;
}

coord_ticket *coord_queue_expired(const coord_queue *queue, int64_t now_us)
{
    for (coord_ticket *t = queue->first; t != NULL; t = t->next) {
        if (t->deadline_us <= now_us) {
            return t;
        }
    }
    return NULL;
}

coord_ticket *coord_queue_stranded(const coord_queue *queue, const coord_room *rooms,
                                   int32_t n_rooms, int64_t floor_us, int64_t now_us,
                                   int64_t wait_us)
{
    int64_t longest = 0;
    for (int32_t i = 0; i < n_rooms; i++) {
        longest = rooms[i].max_context > longest ? rooms[i].max_context : longest;
    }
    for (coord_ticket *t = queue->first; t != NULL; t = t->next) {
        const int64_t since_us = t->since_us > floor_us ? t->since_us : floor_us;
        if (t->n_tokens > longest && now_us - since_us >= wait_us) {
            return t;
        }
    }
    return NULL;
}
