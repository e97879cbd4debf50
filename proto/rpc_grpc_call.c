#include "proto/rpc_grpc_call.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>

#include <string.h>

struct rpc_message {
    rpc_message *next;
    grpc_byte_buffer *bytes;
};

/* The call whose handler runs on this thread: its sends wait for the handler's return. */
static _Thread_local rpc_call *handled_call;

void rpc_call_init(rpc_call *call, const rpc_call_role *role, int32_t max_queued)
{
    atomic_init(&call->n_refs, 1);
    atomic_init(&call->user, NULL);
    call->role = role;
    call->max_queued = max_queued;
    call->deadline_us = INT64_MAX;
    call->end_text = grpc_empty_slice();
    (void)pthread_mutex_init(&call->mutex, NULL);
    for (int kind = 0; kind < RPC_N_TAGS; kind++) {
        call->tags[kind] = (rpc_tag){.call = call, .kind = (rpc_tag_kind)kind};
    }
}

void rpc_call_ref(rpc_call *call)
{
    (void)atomic_fetch_add_explicit(&call->n_refs, 1, memory_order_relaxed);
}

void rpc_call_unref(rpc_call *call)
{
    if (atomic_fetch_sub_explicit(&call->n_refs, 1, memory_order_acq_rel) == 1) {
        (void)pthread_mutex_destroy(&call->mutex);
        base_heap.put(base_heap.ctx, call);
    }
}

void rpc_call_set_user(rpc_call *call, void *user)
{
    atomic_store_explicit(&call->user, user, memory_order_release);
}

void *rpc_call_user(const rpc_call *call)
{
    return atomic_load_explicit(&call->user, memory_order_acquire);
}

int64_t rpc_call_time_left_us(const rpc_call *call)
{
    if (call->deadline_us == INT64_MAX) {
        return INT64_MAX;
    }
    const int64_t left_us = call->deadline_us - base_now_us();
    return left_us > 0 ? left_us : 0;
}

/* ---- sending ---- */

void rpc_call_start_batch(rpc_call *call, const grpc_op *ops, size_t n_ops, rpc_tag_kind kind)
{
    call->n_tags++;
    rpc_call_ref(call);
    RPC_TAG_GIVE(&call->tags[kind]);
    const grpc_call_error error =
        grpc_call_start_batch(call->core, ops, n_ops, &call->tags[kind], NULL);
    if (error != GRPC_CALL_OK) {
        /* Only a mistake in the order of our batches does that; the call cannot go on. */
        BASE_ERROR("rpc batch %d refused: %s", (int)kind, grpc_call_error_to_string(error));
        call->n_tags--;
        call->broken = true;
        call->reads_done = call->reads_done || kind == RPC_TAG_RECEIVE;
        (void)grpc_call_cancel(call->core, NULL);
        (void)atomic_fetch_sub(&call->n_refs, 1); /* never the last: the caller holds one */
    }
}

static void pop_message(rpc_call *call)
{
    rpc_message *message = call->first_message;
    call->first_message = message->next;
    if (call->first_message == NULL) {
        call->last_message = NULL;
    }
    base_heap.put(base_heap.ctx, message);
}

static void drop_messages(rpc_call *call)
{
    while (call->first_message != NULL) {
        grpc_byte_buffer_destroy(call->first_message->bytes);
        pop_message(call);
    }
    call->n_queued = call->in_flight != NULL ? 1 : 0;
}

void rpc_call_pump(rpc_call *call)
{
    grpc_op ops[3];
    size_t n_ops = 0;

    if (call->core == NULL || call->sending || call->broken || call->closed ||
        handled_call == call) {
        return;
    }
    if (call->first_message == NULL && (!call->end_wanted || call->end_sent)) {
        return;
    }
    memset(ops, 0, sizeof ops);
    if (!call->headers_sent) {
        ops[n_ops++].op = GRPC_OP_SEND_INITIAL_METADATA;
        call->headers_sent = true;
    }
    if (call->first_message != NULL) {
        call->in_flight = call->first_message->bytes;
        pop_message(call);
        ops[n_ops].op = GRPC_OP_SEND_MESSAGE;
        ops[n_ops].data.send_message.send_message = call->in_flight;
        if (call->first_message != NULL && n_ops == 0) {
            /* More follows: may share a packet.  Never beside headers, which end their batch only when
             * they are on the wire: core would wait for us, and we for core. */
            ops[n_ops].flags = GRPC_WRITE_BUFFER_HINT;
        }
        n_ops++;
    }
    if (call->first_message == NULL && call->end_wanted) {
        grpc_op *op = &ops[n_ops++];
        if (call->role->is_server) {
            op->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
            op->data.send_status_from_server.status = (grpc_status_code)call->end_code;
            op->data.send_status_from_server.status_details = &call->end_text;
        } else {
            op->op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
        }
        call->end_sent = true;
    }
    call->sending = true;
    rpc_call_start_batch(call, ops, n_ops, RPC_TAG_SEND);
}

base_status rpc_call_send(rpc_call *call, base_view message)
{
    base_status st = BASE_OK;

    (void)pthread_mutex_lock(&call->mutex);
    if (call->closed || call->end_wanted || call->core == NULL) {
        st = BASE_CANCELLED;
        goto out;
    }
    if (call->n_queued >= call->max_queued) {
        st = BASE_EXHAUSTED;
        goto out;
    }
    rpc_message *queued = base_heap.get(base_heap.ctx, sizeof *queued);
    if (queued == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "message of %zu bytes", message.n_bytes);
        goto out;
    }
    grpc_slice slice = grpc_slice_from_copied_buffer(message.data, message.n_bytes);
    queued->bytes = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    if (call->last_message == NULL) {
        call->first_message = queued;
    } else {
        call->last_message->next = queued;
    }
    call->last_message = queued;
    call->n_queued++;
    rpc_call_pump(call);

out:
    (void)pthread_mutex_unlock(&call->mutex);
    return st;
}

int32_t rpc_call_n_queued(rpc_call *call)
{
    (void)pthread_mutex_lock(&call->mutex);
    const int32_t n_queued = call->n_queued;
    (void)pthread_mutex_unlock(&call->mutex);
    return n_queued;
}

/* ---- receiving ---- */

void rpc_call_start_receive(rpc_call *call)
{
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_MESSAGE;
    op.data.recv_message.recv_message = &call->received;
    rpc_call_start_batch(call, &op, 1, RPC_TAG_RECEIVE);
}

static void handle_message(rpc_call *call, grpc_byte_buffer *bytes)
{
    grpc_byte_buffer_reader reader;
    if (grpc_byte_buffer_reader_init(&reader, bytes) == 0) {
        BASE_ERROR("rpc message cannot be read"); /* core has decompressed it already */
        return;
    }
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    const base_view message = {.data = (const char *)GRPC_SLICE_START_PTR(slice),
                               .n_bytes = GRPC_SLICE_LENGTH(slice)};
    call->role->message(call, message);
    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
}

/* ---- events to handlers ---- */

/* The mutex is held at the start and the end, not in between.  Returns false if nothing was due. */
static bool run_one_handler(rpc_call *call)
{
    const rpc_call_role *role = call->role;
    void (*simple)(rpc_call *) = NULL;
    grpc_byte_buffer *bytes = NULL;

    if (call->close_done) {
        return false;
    }
    /* A client gets every message before its status.  A server stops at the end. */
    if (call->closed && (role->is_server || (call->reads_done && !call->message_ready))) {
        call->close_done = true;
        simple = role->close;
    } else if (call->message_ready) {
        call->message_ready = false;
        bytes = call->received;
        call->received = NULL;
    } else if (call->closed) {
        return false;
    } else if (call->half_close_ready) {
        call->half_close_ready = false;
        simple = role->half_close;
    } else if (call->drained_ready) {
        call->drained_ready = false;
        simple = role->drained;
    } else {
        return false;
    }

    (void)pthread_mutex_unlock(&call->mutex);
    handled_call = call;
    if (bytes != NULL) {
        handle_message(call, bytes);
        grpc_byte_buffer_destroy(bytes);
    } else if (simple != NULL) {
        simple(call);
    }
    handled_call = NULL;
    (void)pthread_mutex_lock(&call->mutex);

    if (bytes != NULL && !call->one_message && !(call->closed && role->is_server)) {
        rpc_call_start_receive(call);
    }
    rpc_call_pump(call);
    return true;
}

static void release_core(rpc_call *call)
{
    grpc_call *core = call->core;
    call->core = NULL;
    drop_messages(call);
    if (call->received != NULL) {
        grpc_byte_buffer_destroy(call->received);
        call->received = NULL;
    }
    grpc_slice_unref(call->end_text);
    call->end_text = grpc_empty_slice();
    (void)pthread_mutex_unlock(&call->mutex);
    grpc_call_unref(core);
    call->role->released(call);
}

static void on_received(rpc_call *call, bool ok)
{
    if (ok && call->received != NULL) {
        call->message_ready = true;
        return;
    }
    call->reads_done = true;
    /* No message also means: too large, or the call failed. */
    call->half_close_ready = ok && grpc_call_failed_before_recv_message(call->core) == 0;
}

static void on_sent(rpc_call *call, bool ok)
{
    const bool was_message = call->in_flight != NULL;
    call->sending = false;
    if (was_message) {
        grpc_byte_buffer_destroy(call->in_flight);
        call->in_flight = NULL;
        call->n_queued--;
    }
    call->broken = call->broken || !ok;
    rpc_call_pump(call);
    call->drained_ready =
        call->drained_ready || (was_message && call->n_queued == 0 && !call->end_wanted);
}

void rpc_call_on_tag(rpc_tag *tag, bool ok)
{
    rpc_call *call = tag->call;

    (void)pthread_mutex_lock(&call->mutex);
    call->n_tags--;
    switch (tag->kind) {
    case RPC_TAG_RECEIVE: on_received(call, ok); break;
    case RPC_TAG_SEND: on_sent(call, ok); break;
    case RPC_TAG_CLOSE:
        call->closed = true;
        drop_messages(call);
        break;
    case RPC_TAG_START:
    case RPC_TAG_NEW:
    case RPC_TAG_SHUTDOWN:
    case RPC_N_TAGS: break;
    }
    if (!call->at_work) {
        call->at_work = true;
        while (run_one_handler(call)) {
        }
        call->at_work = false;
        if (call->close_done && call->n_tags == 0 && call->core != NULL) {
            release_core(call); /* unlocks */
            rpc_call_unref(call);
            return;
        }
    }
    (void)pthread_mutex_unlock(&call->mutex);
    rpc_call_unref(call);
}
