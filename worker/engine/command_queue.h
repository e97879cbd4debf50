/* worker/engine/command_queue.h - commands on their way from the stream to the step loop, and which
 * sequences of the stream the step loop may still know.
 *
 * A lost stream (command_queue_lose) becomes a CANCEL for each of its sequences and then a mark; until the
 * mark is popped the queue is `muted`: what the step loop reports then belongs to the lost stream.
 * Nodes for that are made when an ADMIT comes in, so losing a stream cannot fail.
 * Threads.  None of its own: the caller's mutex guards it. */
#ifndef WORKER_ENGINE_COMMAND_QUEUE_H
#define WORKER_ENGINE_COMMAND_QUEUE_H

#include "base/alloc.h"
#include "base/status.h"
#include "proto/group_codec.h"

#include <stdbool.h>
#include <stdint.h>

#define COMMAND_QUEUE_MAX 65536 /* commands that wait */

typedef struct command command;

typedef struct command_queue {
    command *first;
    command *last;
    command *known; /* the CANCELs in reserve, one per sequence */
    command *popped;
    int32_t n_queued;
    int32_t n_marks;
    base_alloc mem;
} command_queue;

void command_queue_init(command_queue *q, const base_alloc *mem);
void command_queue_reset(command_queue *q); /* frees everything */

/* Takes over down (one allocation of mem) on BASE_OK.
 * Errors: EXHAUSTED (bare: COMMAND_QUEUE_MAX wait), NO_MEMORY. */
BASE_MUST_CHECK base_status command_queue_push(command_queue *q, group_down *down);
/* NULL: nothing waits.  Valid until the next pop. */
const group_down *command_queue_pop(command_queue *q);
bool command_queue_is_muted(const command_queue *q);

/* The sequence was refused or has ended: it needs no CANCEL. */
void command_queue_forget(command_queue *q, uint64_t seq);
/* The stream ended: what waits is dropped (but DRAIN), what is known gets cancelled. */
void command_queue_lose(command_queue *q);

#endif /* WORKER_ENGINE_COMMAND_QUEUE_H */
