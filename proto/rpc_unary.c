/* The blocking call, made of rpc.h's own parts. */
#include "proto/rpc.h"

#include "base/alloc.h"
#include "base/bytes.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LATE_MS 1000 /* the status may come this long after the deadline */

/* Shared by the waiting thread and the handlers: who comes last frees it. */
typedef struct unary_wait {
    atomic_int n_refs;
    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t changed;
    base_bytes reply;
    base_status reply_status; /* of keeping the reply */
    int n_replies;
    bool done;
    rpc_code code;
    char text[RPC_MAX_STATUS_BYTES + 1];
} unary_wait;

static unary_wait *wait_create(void)
{
    pthread_condattr_t monotonic;
    unary_wait *w = base_heap.get(base_heap.ctx, sizeof *w);
    if (w == NULL) {
        return NULL;
    }
    atomic_init(&w->n_refs, 1);
    (void)pthread_mutex_init(&w->mutex, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    base_bytes_init(&w->reply, RPC_MAX_MESSAGE_BYTES, &base_heap);
    return w;
}

static void wait_unref(unary_wait *w)
{
    if (w == NULL || atomic_fetch_sub(&w->n_refs, 1) != 1) {
        return;
    }
    base_bytes_reset(&w->reply);
    (void)pthread_cond_destroy(&w->changed);
    (void)pthread_mutex_destroy(&w->mutex);
    base_heap.put(base_heap.ctx, w);
}

static void on_message(void *ctx, rpc_call *call, base_view message)
{
    unary_wait *w = ctx;
    (void)call;
    (void)pthread_mutex_lock(&w->mutex);
    if (w->n_replies++ == 0) {
        w->reply_status = base_bytes_add(&w->reply, message.data, message.n_bytes);
    }
    (void)pthread_mutex_unlock(&w->mutex);
}

static void on_status(void *ctx, rpc_call *call, rpc_code code, const char *text)
{
    unary_wait *w = ctx;
    (void)call;
    (void)pthread_mutex_lock(&w->mutex);
    w->code = code;
    if (code == RPC_OK && w->n_replies != 1) {
        w->code = RPC_INTERNAL;
        text = w->n_replies == 0 ? "no reply came" : "more than one reply came";
    }
    (void)snprintf(w->text, sizeof w->text, "%s", text);
    w->done = true;
    (void)pthread_cond_broadcast(&w->changed);
    (void)pthread_mutex_unlock(&w->mutex);
    wait_unref(w);
}

/* Returns with the mutex held. */
static bool wait_done(unary_wait *w, int64_t timeout_ms)
{
    struct timespec until;
    int rc = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000 + LATE_MS / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&w->mutex);
    while (!w->done && rc == 0) {
        rc = pthread_cond_timedwait(&w->changed, &w->mutex, &until);
    }
    return w->done;
}

base_status rpc_client_unary(rpc_channel *channel, const char *path, base_view request,
                             int64_t timeout_ms, base_bytes *reply_out, rpc_code *code_out,
                             char *text_out)
{
    base_status st = BASE_OK;
    rpc_call *call = NULL;
    unary_wait *w = wait_create();

    if (w == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "rpc call");
    }
    const rpc_client_handlers handlers = {
        .ctx = w, .on_message = on_message, .on_status = on_status};
    (void)atomic_fetch_add(&w->n_refs, 1); /* the handlers' */
    st = rpc_client_start(channel, path, timeout_ms, 1, &handlers, &call);
    if (st != BASE_OK) {
        wait_unref(w);
        goto out;
    }
    st = rpc_call_send(call, request);
    if (st == BASE_NO_MEMORY) {
        rpc_client_cancel(call);
        goto out;
    }
    rpc_client_half_close(call); /* CANCELLED above: its status is on the way */

    if (!wait_done(w, timeout_ms)) {
        st = BASE_FAIL(BASE_TIMEOUT, "%s: no status %d ms after the deadline", path, LATE_MS);
        rpc_client_cancel(call);
    } else {
        st = w->reply_status;
        if (st == BASE_OK && w->code == RPC_OK) {
            st = base_bytes_add(reply_out, w->reply.data, w->reply.n_bytes);
        }
        if (st == BASE_OK) {
            *code_out = w->code;
            memcpy(text_out, w->text, sizeof w->text);
        }
    }
    (void)pthread_mutex_unlock(&w->mutex);

out:
    if (call != NULL) {
        rpc_call_unref(call);
    }
    wait_unref(w);
    return st;
}
