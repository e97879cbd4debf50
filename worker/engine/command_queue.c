#include "worker/engine/command_queue.h"

#include <string.h>

struct command {
    command *next;
    group_down *down;  /* of the stream; NULL: one of our own */
    group_down cancel; /* of our own; its kind is PING for a mark */
};

static command *take(const command_queue *q)
{
    return q->mem.get(q->mem.ctx, sizeof(command));
}

static void drop(const command_queue *q, command *c)
{
    if (c != NULL) {
        q->mem.put(q->mem.ctx, c->down);
        q->mem.put(q->mem.ctx, c);
    }
}

static void append(command_queue *q, command *c)
{
    c->next = NULL;
    if (q->last == NULL) {
        q->first = c;
    } else {
        q->last->next = c;
    }
    q->last = c;
    q->n_queued++;
}

static bool is_mark(const command *c)
{
    return c->down == NULL && c->cancel.kind == GROUP_DOWN_PING;
}

void command_queue_init(command_queue *q, const base_alloc *mem)
{
    memset(q, 0, sizeof *q);
    q->mem = *mem;
}

static void drop_list(const command_queue *q, command *c)
{
    while (c != NULL) {
        command *next = c->next;
        drop(q, c);
        c = next;
    }
}

void command_queue_reset(command_queue *q)
{
    const base_alloc mem = q->mem;
    drop_list(q, q->first);
    drop_list(q, q->known);
    drop(q, q->popped);
    command_queue_init(q, &mem);
}

base_status command_queue_push(command_queue *q, group_down *down)
{
    base_status st = BASE_OK;
    command *c = NULL;
    command *reserve[2] = {NULL, NULL}; /* the CANCEL, and the mark of a stream's first sequence */

    if (q->n_queued >= COMMAND_QUEUE_MAX) {
        st = BASE_EXHAUSTED;
        goto out;
    }
    c = take(q);
    if (c == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "command queue");
        goto out;
    }
    for (int i = 0; down->kind == GROUP_DOWN_ADMIT && i < (q->known == NULL ? 2 : 1); i++) {
        reserve[i] = take(q);
        if (reserve[i] == NULL) {
            st = BASE_FAIL(BASE_NO_MEMORY, "command queue");
            goto out;
        }
    }
    if (reserve[1] != NULL) { /* stays last in the list of the known */
        reserve[1]->cancel.kind = GROUP_DOWN_PING;
        q->known = reserve[1];
    }
    if (reserve[0] != NULL) {
        reserve[0]->cancel.kind = GROUP_DOWN_CANCEL;
        reserve[0]->cancel.seq = down->seq;
        reserve[0]->next = q->known;
        q->known = reserve[0];
    }
    c->down = down;
    append(q, c);
    c = NULL;
    memset(reserve, 0, sizeof reserve);

out:
    drop(q, c);
    drop(q, reserve[0]);
    drop(q, reserve[1]);
    return st;
}

const group_down *command_queue_pop(command_queue *q)
{
    drop(q, q->popped);
    q->popped = NULL;
    while (q->first != NULL) {
        command *c = q->first;
        q->first = c->next;
        if (q->first == NULL) {
            q->last = NULL;
        }
        q->n_queued--;
        if (!is_mark(c)) {
            q->popped = c;
            return c->down != NULL ? c->down : &c->cancel;
        }
        q->n_marks--;
        drop(q, c);
    }
    return NULL;
}

bool command_queue_is_muted(const command_queue *q)
{
    return q->n_marks > 0;
}

void command_queue_forget(command_queue *q, uint64_t seq)
{
    for (command **at = &q->known; *at != NULL; at = &(*at)->next) {
        command *c = *at;
        if (!is_mark(c) && c->cancel.seq == seq) {
            *at = c->next;
            drop(q, c);
            return;
        }
    }
}

void command_queue_lose(command_queue *q)
{
    command *c = q->first;
    q->first = q->last = NULL;
    q->n_queued = 0;
    while (c != NULL) { /* what an earlier loss left stays too */
        command *next = c->next;
        if (c->down == NULL || c->down->kind == GROUP_DOWN_DRAIN) {
            append(q, c);
        } else {
            drop(q, c);
        }
        c = next;
    }
    c = q->known;
    q->known = NULL;
    while (c != NULL) { /* the mark is the last one */
        command *next = c->next;
        q->n_marks += is_mark(c);
        append(q, c);
        c = next;
    }
}
