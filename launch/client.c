#include "launch/client.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "launch/local_group.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define READY_POLL_US     50000
#define STOP_POLL_MS      100
#define HEALTH_TIMEOUT_MS 2000
#define MAX_QUEUED        4
#define END_POLL_US       20000
#define END_POLLS         50

/* A HealthCheckResponse that says SERVING: field 1, varint 1. */
static const char serving_reply[] = {0x08, 0x01};

base_status client_wait_ready(rpc_channel *channel, const char *target, const local_group *group,
                              int64_t timeout_ms, const volatile sig_atomic_t *stop)
{
    const int64_t until = base_now_us() + timeout_ms * 1000;
    const base_view empty = {NULL, 0};
    const base_view serving = {serving_reply, sizeof serving_reply};
    base_status st = BASE_OK;

    for (;;) {
        base_bytes reply;
        rpc_code code = RPC_UNKNOWN;
        char text[RPC_MAX_STATUS_BYTES + 1] = "";
        base_bytes_init(&reply, 64, &base_heap);
        st = rpc_client_unary(channel, "/grpc.health.v1.Health/Check", empty, HEALTH_TIMEOUT_MS,
                              &reply, &code, text);
        const bool ready =
            st == BASE_OK && code == RPC_OK && base_view_equal(base_bytes_view(&reply), serving);
        base_bytes_reset(&reply);
        if (st != BASE_OK || ready) {
            return st;
        }
        if (group != NULL) {
            BASE_TRY(st, out, local_group_check(group));
        }
        if (*stop) {
            return BASE_FAIL(BASE_CANCELLED, "interrupted");
        }
        if (base_now_us() > until) {
            return BASE_FAIL(BASE_TIMEOUT, "%s was not ready within %" PRId64 " s (%s)", target,
                             timeout_ms / 1000, text[0] != '\0' ? text : "no group is attached");
        }
        base_sleep_us(READY_POLL_US);
    }
out:
    return st;
}

typedef struct generation {
    client_on_event on_event;
    void *ctx;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t ended;
    bool has_status;
    bool bad_event;
    rpc_code code;
    char text[RPC_MAX_STATUS_BYTES + 1];
} generation;

static void take_message(void *ctx, rpc_call *call, base_view message)
{
    generation *g = ctx;
    inference_event *event = NULL;
    if (inference_event_decode(message, &base_heap, &event) != BASE_OK) {
        g->bad_event = true;
        rpc_client_cancel(call);
        return;
    }
    g->on_event(g->ctx, event);
    inference_event_free(event, &base_heap);
}

static void take_status(void *ctx, rpc_call *call, rpc_code code, const char *text)
{
    generation *g = ctx;
    (void)call;
    (void)pthread_mutex_lock(&g->lock);
    g->has_status = true;
    g->code = code;
    (void)snprintf(g->text, sizeof g->text, "%s", text);
    (void)pthread_cond_signal(&g->ended);
    (void)pthread_mutex_unlock(&g->lock);
}

/* Waits for the status; core's deadline ends every call, so this ends too. */
static void wait_for_status(generation *g, rpc_call *call, const local_group *group,
                            const volatile sig_atomic_t *stop)
{
    bool cancelled = false;
    (void)pthread_mutex_lock(&g->lock);
    while (!g->has_status) {
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += STOP_POLL_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&g->ended, &g->lock, &until);
        if (!cancelled && (*stop || (group != NULL && local_group_check(group) != BASE_OK))) {
            cancelled = true;
            rpc_client_cancel(call);
        }
    }
    (void)pthread_mutex_unlock(&g->lock);
}

static base_status status_of(const generation *g)
{
    if (g->bad_event) {
        return BASE_FAIL(BASE_IO, "the server sent an event that is no GenerateResponse");
    }
    base_status st = BASE_IO;
    switch (g->code) {
    case RPC_OK: return BASE_OK;
    case RPC_CANCELLED: st = BASE_CANCELLED; break;
    case RPC_DEADLINE_EXCEEDED: st = BASE_TIMEOUT; break;
    case RPC_UNAVAILABLE: st = BASE_UNAVAILABLE; break;
    case RPC_INVALID_ARGUMENT: st = BASE_BAD_INPUT; break;
    case RPC_OUT_OF_RANGE: st = BASE_OUT_OF_RANGE; break;
    case RPC_RESOURCE_EXHAUSTED: st = BASE_EXHAUSTED; break;
    case RPC_NOT_FOUND: st = BASE_NOT_FOUND; break;
    default: break;
    }
    return BASE_FAIL(st, "%s: %s", rpc_code_name(g->code), g->text);
}

/* How the group ended says more than the status of a call, which may come moments earlier. */
static base_status reason_of(base_status st, const local_group *group)
{
    base_status group_st = local_group_check(group);
    for (int i = 0; i < END_POLLS && st == BASE_UNAVAILABLE && group_st == BASE_OK; i++) {
        base_sleep_us(END_POLL_US);
        group_st = local_group_check(group);
    }
    return group_st != BASE_OK ? group_st : st;
}

base_status client_generate(rpc_channel *channel, const local_group *group,
                            const inference_generate_request *request, int64_t timeout_ms,
                            client_on_event on_event, void *ctx, const volatile sig_atomic_t *stop)
{
    base_status st;
    base_bytes bytes;
    rpc_call *call = NULL;
    generation g = {.on_event = on_event,
                    .ctx = ctx,
                    .lock = PTHREAD_MUTEX_INITIALIZER,
                    .ended = PTHREAD_COND_INITIALIZER};
    const rpc_client_handlers handlers = {
        .ctx = &g, .on_message = take_message, .on_status = take_status};

    base_bytes_init(&bytes, RPC_MAX_MESSAGE_BYTES, &base_heap);
    BASE_TRY(st, out, inference_generate_request_encode(request, &bytes));
    BASE_TRY(st, out,
             rpc_client_start(channel, "/ropewalk.v1.Inference/Generate", timeout_ms, MAX_QUEUED,
                              &handlers, &call));
    if (rpc_call_send(call, base_bytes_view(&bytes)) == BASE_OK) {
        rpc_client_half_close(call);
    } /* else the call has ended already and its status says why */
    wait_for_status(&g, call, group, stop);
    st = status_of(&g);
    if (st != BASE_OK && group != NULL && !*stop) {
        st = reason_of(st, group);
    }
out:
    if (call != NULL) {
        rpc_call_unref(call);
    }
    base_bytes_reset(&bytes);
    return st;
}
