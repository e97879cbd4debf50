#include "coordinator/state.h"

#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ENDED_WAIT_US 1000000 /* a cancelled sequence ends within one step */

/* ---- commands to groups ---- */

base_status coord_send_down(coordinator *c, coord_group *group, const group_down *down)
{
    base_bytes bytes;

    base_bytes_init(&bytes, RPC_MAX_MESSAGE_BYTES, &c->mem);
    base_status st = group_down_encode(down, &bytes);
    if (st == BASE_OK) {
        st = rpc_call_send(group->call, base_bytes_view(&bytes));
    }
    base_bytes_reset(&bytes);
    return st;
}

/* For Cancel and Credit: a group that cannot be reached is about to be lost. */
static void send_or_warn(coordinator *c, coord_group *group, const group_down *down)
{
    const base_status st = coord_send_down(c, group, down);
    if (st != BASE_OK && st != BASE_CANCELLED) {
        BASE_WARN("seq %" PRIu64 ": command %d not sent: %s", down->seq, (int)down->kind,
                  base_status_text(st));
    }
}

/* Takes the request away from its group.  The slot stays until the group says that it has ended. */
static void leave_group(coordinator *c, coord_request *request)
{
    coord_group *group = request->group;
    if (group == NULL) {
        return;
    }
    coord_slot *slot = coord_group_find(group, request->seq);
    if (slot != NULL) {
        slot->request = NULL;
        if (request->state != COORD_REQUEST_STOPPED) { /* cancelled already */
            const group_down down = {.kind = GROUP_DOWN_CANCEL, .seq = request->seq};
            send_or_warn(c, group, &down);
        }
    }
    request->group = NULL;
}

/* ---- the end of a request ---- */

void coord_end_request(coordinator *c, coord_request *request, coord_end end, rpc_code code,
                       const char *text)
{
    BASE_DEBUG("req %" PRIu64 " ends: %s %s, %zu prompt tokens, %zu new", request->ticket.order,
               rpc_code_name(code), text == NULL ? "" : text, request->n_prompt, request->n_made);
    coord_queue_remove(&c->queue, &request->ticket);
    leave_group(c, request);
    rpc_call_set_user(request->call, NULL);
    rpc_call_finish(request->call, code, text);
    c->n_ended[end]++;
    c->n_live--;
    coord_request_destroy(request);
}

/* Errors of ours, not of the client's. */
static void end_broken(coordinator *c, coord_request *request, base_status st)
{
    const char *text = st == BASE_EXHAUSTED ? "the client's queue is full" : base_last_error();
    BASE_ERROR("req %" PRIu64 ": %s", request->ticket.order, text);
    coord_end_request(c, request, COORD_END_REFUSED,
                      st == BASE_NO_MEMORY ? RPC_RESOURCE_EXHAUSTED : RPC_INTERNAL, text);
}

static base_status send_event(coord_request *request, base_bytes *event)
{
    base_status st = BASE_OK;
    if (event->n_bytes > 0) {
        st = rpc_call_send(request->call, base_bytes_view(event));
    }
    base_bytes_reset(event);
    return st == BASE_CANCELLED ? BASE_OK : st; /* its on_close is on the way */
}

/* ended may be NULL: the blocks are not known then. */
static void finish(coordinator *c, coord_request *request, int32_t ranks,
                   inference_finish_reason reason, int32_t stop_id, const group_up *ended)
{
    base_status st = BASE_OK;
    base_bytes event;

    base_bytes_init(&event, COORD_MAX_EVENT, &c->mem);
    BASE_TRY(st, out, coord_request_encode_rest(request, &event));
    BASE_TRY(st, out, send_event(request, &event));
    BASE_TRY(st, out,
             coord_request_encode_finished(
                 request, reason, stop_id, ranks, ended == NULL ? NULL : ended->blocks_per_rank,
                 ended == NULL ? 0 : ended->n_blocks_per_rank, base_now_us(), &event));
    BASE_TRY(st, out, send_event(request, &event));

out:
    base_bytes_reset(&event);
    if (st == BASE_OK) {
        coord_end_request(c, request, COORD_END_FINISHED, RPC_OK, NULL);
    } else {
        end_broken(c, request, st);
    }
}

void coord_finish_stopped(coordinator *c, coord_group *group, int64_t now_us)
{
    for (int32_t i = 0; i < group->n_slots; i++) {
        coord_request *request = group->slots[i].request;
        if (request != NULL && request->state == COORD_REQUEST_STOPPED &&
            now_us - request->stopped_us >= ENDED_WAIT_US) {
            finish(c, request, group->ranks, INFERENCE_FINISH_STOP_STRING, 0, NULL);
        }
    }
}

/* ---- from the queue to groups ---- */

int32_t coord_rooms(const coordinator *c, coord_room rooms_out[COORD_MAX_GROUPS])
{
    int32_t n_rooms = 0;
    for (const coord_group *g = c->groups; g != NULL; g = g->next) {
        rooms_out[n_rooms++] = coord_group_room(g);
    }
    return n_rooms;
}

static void requeue(coordinator *c, coord_request *request)
{
    request->group = NULL;
    request->state = COORD_REQUEST_QUEUED;
    coord_queue_return(&c->queue, &request->ticket, base_now_us());
}

/* Back into the queue, or to its end if it has been placed too often without a token. */
static void replay_later(coordinator *c, coord_request *request)
{
    if (request->n_placements >= COORD_MAX_PLACEMENTS) {
        coord_end_request(c, request, COORD_END_REFUSED, RPC_UNAVAILABLE,
                          "the request was lost with its group too often");
        return;
    }
    requeue(c, request);
}

static void admit(coordinator *c, coord_group *group, coord_request *request, int32_t start_rank)
{
    base_status st = BASE_OK;
    base_bytes bytes;

    base_bytes_init(&bytes, RPC_MAX_MESSAGE_BYTES, &c->mem);
    coord_slot *slot = coord_group_open_slot(group, request, start_rank, request->ticket.n_tokens);
    BASE_TRY(st, out, coord_request_encode_admit(request, slot->seq, start_rank, &bytes));
    st = rpc_call_send(group->call, base_bytes_view(&bytes));
    if (st == BASE_OK) {
        coord_queue_remove(&c->queue, &request->ticket);
        request->state = COORD_REQUEST_ADMITTED;
        request->group = group;
        request->seq = slot->seq;
        request->n_placements++;
        BASE_DEBUG("req %" PRIu64 " seq %" PRIu64 " admitted, start rank %d", request->ticket.order,
                   slot->seq, (int)start_rank);
    }

out:
    base_bytes_reset(&bytes);
    if (st == BASE_OK) {
        return;
    }
    coord_group_close_slot(group, slot);
    if (st == BASE_CANCELLED || st == BASE_EXHAUSTED) {
        coord_group_take_refusal(group); /* it ends or does not read: the silence will tell */
    } else {
        end_broken(c, request, st);
    }
}

void coord_dispatch(coordinator *c)
{
    coord_room rooms[COORD_MAX_GROUPS];
    coord_place place;

    for (;;) {
        const int32_t n_rooms = coord_rooms(c, rooms);
        coord_request *request =
            (coord_request *)coord_queue_next(&c->queue, rooms, n_rooms, &place);
        if (request == NULL) {
            return;
        }
        coord_group *group = c->groups;
        for (int32_t i = 0; i < place.room; i++) {
            group = group->next;
        }
        admit(c, group, request, place.start_rank);
    }
}

/* ---- what groups say ---- */

static void take_tokens(coordinator *c, coord_group *group, coord_request *request,
                        const group_up *up)
{
    base_status st = BASE_OK;
    int32_t n_taken = 0;
    base_bytes event;

    if (request->state == COORD_REQUEST_STOPPED) {
        return; /* made before the Cancel arrived */
    }
    base_bytes_init(&event, COORD_MAX_EVENT, &c->mem);
    BASE_TRY(st, out, coord_request_take_tokens(request, up, base_now_us(), &event, &n_taken));
    BASE_TRY(st, out, send_event(request, &event));
    if (request->stop >= 0) {
        const group_down down = {.kind = GROUP_DOWN_CANCEL, .seq = request->seq};
        send_or_warn(c, group, &down);
        request->state = COORD_REQUEST_STOPPED;
        request->stopped_us = base_now_us();
    }

out:
    base_bytes_reset(&event);
    if (st != BASE_OK) {
        end_broken(c, request, st);
    }
}

/* Progress may be left out: only a client that reads gets it, and only before its first token. */
static void relay_progress(coordinator *c, coord_request *request, const group_up *up)
{
    base_bytes bytes;

    if (request->n_made > 0 || rpc_call_n_queued(request->call) > 8) {
        return;
    }
    const inference_event event = {
        .kind = INFERENCE_EVENT_PREFILL, .prefill_done = up->done, .prefill_total = up->total};
    base_bytes_init(&bytes, COORD_MAX_EVENT, &c->mem);
    base_status st = inference_event_encode(&event, &bytes);
    if (st == BASE_OK) {
        st = send_event(request, &bytes);
    }
    base_bytes_reset(&bytes);
    if (st != BASE_OK) {
        BASE_DEBUG("req %" PRIu64 ": progress left out", request->ticket.order);
    }
}

static void take_ended(coordinator *c, coord_group *group, coord_slot *slot, const group_up *up)
{
    static const inference_finish_reason reasons[] = {
        [GROUP_END_LENGTH] = INFERENCE_FINISH_LENGTH,
        [GROUP_END_EOS] = INFERENCE_FINISH_EOS,
        [GROUP_END_STOP_TOKEN] = INFERENCE_FINISH_STOP_TOKEN,
    };
    coord_request *request = slot->request;

    coord_group_close_slot(group, slot);
    if (request == NULL) {
        return;
    }
    request->group = NULL;
    if (request->state == COORD_REQUEST_STOPPED) {
        finish(c, request, group->ranks, INFERENCE_FINISH_STOP_STRING, 0, up);
    } else if (up->reason == GROUP_END_CANCELLED || up->reason == GROUP_END_UNSPECIFIED) {
        replay_later(c, request); /* not by us: the group gives its work back */
    } else {
        finish(c, request, group->ranks, reasons[up->reason], up->stop_id, up);
    }
}

static void take_refused(coordinator *c, coord_group *group, coord_slot *slot, const group_up *up)
{
    coord_request *request = slot->request;
    char text[256];

    coord_group_close_slot(group, slot);
    if (up->retry) {
        coord_group_take_refusal(group);
    }
    if (request == NULL) {
        return;
    }
    if (up->retry) {
        request->n_placements--; /* waiting is no fault of the request */
        requeue(c, request);
        return;
    }
    const int n = up->reason_text.n_bytes < 240 ? (int)up->reason_text.n_bytes : 240;
    (void)snprintf(text, sizeof text, "%.*s", n, n > 0 ? up->reason_text.data : "");
    request->group = NULL;
    coord_end_request(c, request, COORD_END_REFUSED,
                      up->invalid ? RPC_INVALID_ARGUMENT : RPC_OUT_OF_RANGE, text);
}

static base_status take_about_sequence(coordinator *c, coord_group *group, const group_up *up)
{
    coord_slot *slot = coord_group_find(group, up->seq);

    if (slot == NULL) {
        BASE_DEBUG("seq %" PRIu64 " is not of this stream; message left out", up->seq);
        return BASE_OK; /* a group that redials may still end what it had before */
    }
    coord_request *request = slot->request;
    switch (up->kind) {
    case GROUP_UP_ADMITTED:
        if (request != NULL && request->state == COORD_REQUEST_ADMITTED) {
            request->state = COORD_REQUEST_RUNNING;
            request->admitted_us = request->admitted_us == 0 ? base_now_us() : request->admitted_us;
        }
        return coord_group_take_admitted(group, slot, up->start_rank);
    case GROUP_UP_PROGRESS:
        if (request != NULL) {
            relay_progress(c, request, up);
        }
        break;
    case GROUP_UP_TOKENS:
        if (request != NULL) {
            take_tokens(c, group, request, up);
        }
        break;
    case GROUP_UP_REFUSED: take_refused(c, group, slot, up); break;
    case GROUP_UP_ENDED: take_ended(c, group, slot, up); break;
    case GROUP_UP_HELLO:
    case GROUP_UP_LOAD: break;
    }
    return BASE_OK;
}

base_status coord_take_up(coordinator *c, coord_group *group, const group_up *up)
{
    base_status st = BASE_OK;

    group->heard_us = base_now_us();
    switch (up->kind) {
    case GROUP_UP_HELLO: st = BASE_FAIL(BASE_BAD_INPUT, "a second hello"); break;
    case GROUP_UP_LOAD: st = coord_group_take_load(group, up); break;
    case GROUP_UP_ADMITTED:
    case GROUP_UP_REFUSED:
    case GROUP_UP_PROGRESS:
    case GROUP_UP_TOKENS:
    case GROUP_UP_ENDED: st = take_about_sequence(c, group, up); break;
    }
    if (st == BASE_OK &&
        (up->kind == GROUP_UP_LOAD || up->kind == GROUP_UP_ENDED || up->kind == GROUP_UP_REFUSED)) {
        coord_dispatch(c);
    }
    return st;
}

void coord_take_drained(coordinator *c, coord_request *request)
{
    if (rpc_call_n_queued(request->call) > 0) {
        return; /* more was sent meanwhile; it will run empty again */
    }
    const int32_t credit = coord_request_take_drained(request);
    if (credit > 0) {
        const group_down down = {.kind = GROUP_DOWN_CREDIT, .seq = request->seq, .credit = credit};
        send_or_warn(c, request->group, &down);
    }
}

/* ---- a group goes ---- */

static void leave_lost_group(coordinator *c, coord_group *group, coord_request *request)
{
    int32_t stop_id = 0;

    request->group = NULL;
    if (request->state == COORD_REQUEST_STOPPED) {
        finish(c, request, group->ranks, INFERENCE_FINISH_STOP_STRING, 0, NULL);
        return;
    }
    const inference_finish_reason reason = coord_request_is_complete(request, &stop_id);
    if (reason != INFERENCE_FINISH_UNSPECIFIED) {
        finish(c, request, group->ranks, reason, stop_id, NULL);
        return;
    }
    replay_later(c, request);
}

void coord_lose_group(coordinator *c, coord_group *group, rpc_code code, const char *why)
{
    coord_group **at = &c->groups;
    while (*at != group) {
        at = &(*at)->next;
    }
    *at = group->next;
    c->n_groups--;
    c->last_loss_us = base_now_us();
    BASE_WARN("group of %d ranks lost with %d sequences: %s; %d groups are left", (int)group->ranks,
              (int)group->n_open, why, (int)c->n_groups);
    for (int32_t i = 0; i < group->n_slots; i++) {
        coord_request *request = group->slots[i].request;
        if (request != NULL) {
            leave_lost_group(c, group, request);
        }
    }
    if (c->n_groups == 0) {
        rpc_server_set_serving(c->clients, false);
    }
    rpc_call_set_user(group->call, NULL);
    rpc_call_finish(group->call, code, why);
    coord_group_destroy(group);
    coord_dispatch(c);
}
