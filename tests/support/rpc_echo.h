/* tests/support/rpc_echo.h - a server with methods that show what the rpc layer does.
 *
 *   /test.Echo/Unary   sends the message back
 *   /test.Echo/Count   the message is a number n: sends "0" .. "n-1", as fast as the queue allows
 *   /test.Echo/Bidi    sends each message back, "slow" after 100 ms; ends when the client does
 *   /test.Echo/Hold    says "held", then nothing until it is cancelled or released
 *   /test.Echo/Finish  ends twice: first INVALID_ARGUMENT with the message as text, then OK */
#ifndef TESTS_SUPPORT_RPC_ECHO_H
#define TESTS_SUPPORT_RPC_ECHO_H

#include "tests/support/rpc_peer.h"

#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>

#define ECHO_MAX_QUEUED 32

/* What the handlers saw. */
typedef struct echo_seen {
    atomic_int n_messages;
    atomic_int n_closed;
    atomic_int n_overlaps; /* handlers of one call that ran at once, or after on_close */
    atomic_int n_exhausted;
    atomic_llong time_left_us; /* of the last Hold */
    _Atomic(rpc_call *) held;  /* with a reference */
} echo_seen;

typedef struct echo_call {
    atomic_int at_work;
    int next;
    int n;
} echo_call;

static inline echo_call *echo_enter(echo_seen *seen, rpc_call *call)
{
    echo_call *state = rpc_call_user(call);
    if (state == NULL) {
        state = base_heap.get(base_heap.ctx, sizeof *state);
        assert_non_null(state);
        rpc_call_set_user(call, state);
    }
    if (atomic_fetch_add(&state->at_work, 1) != 0) {
        atomic_fetch_add(&seen->n_overlaps, 1);
    }
    return state;
}

static inline void echo_leave(echo_call *state)
{
    (void)atomic_fetch_sub(&state->at_work, 1);
}

static inline void echo_send_back(void *ctx, rpc_call *call, base_view message)
{
    echo_seen *seen = ctx;
    echo_call *state = echo_enter(seen, call);
    atomic_fetch_add(&seen->n_messages, 1);
    if (base_view_equal(message, base_view_of("slow"))) {
        base_sleep_us(100000);
    }
    peer_try_send(call, message);
    echo_leave(state);
}

static inline void echo_unary(void *ctx, rpc_call *call, base_view message)
{
    echo_send_back(ctx, call, message);
    rpc_call_finish(call, RPC_OK, NULL);
}

static inline void echo_half_close(void *ctx, rpc_call *call)
{
    echo_call *state = echo_enter(ctx, call);
    rpc_call_finish(call, RPC_OK, NULL);
    echo_leave(state);
}

static inline void echo_count_on(void *ctx, rpc_call *call)
{
    echo_seen *seen = ctx;
    echo_call *state = echo_enter(seen, call);
    char number[16];
    base_status st = BASE_OK;
    while (state->next < state->n && st == BASE_OK) {
        (void)snprintf(number, sizeof number, "%d", state->next);
        st = rpc_call_send(call, base_view_of(number));
        state->next += st == BASE_OK;
    }
    atomic_fetch_add(&seen->n_exhausted, st == BASE_EXHAUSTED);
    if (state->next == state->n) {
        rpc_call_finish(call, RPC_OK, NULL);
    }
    echo_leave(state);
}

static inline void echo_count(void *ctx, rpc_call *call, base_view message)
{
    echo_call *state = echo_enter(ctx, call);
    char digits[16] = {0};
    memcpy(digits, message.data, message.n_bytes < 15 ? message.n_bytes : 15);
    state->n = atoi(digits);
    echo_leave(state);
    echo_count_on(ctx, call);
}

static inline void echo_hold(void *ctx, rpc_call *call, base_view message)
{
    echo_seen *seen = ctx;
    echo_call *state = echo_enter(seen, call);
    (void)message;
    atomic_store(&seen->time_left_us, rpc_call_time_left_us(call));
    atomic_fetch_add(&seen->n_messages, 1);
    rpc_call_ref(call);
    rpc_call *before = atomic_exchange(&seen->held, call);
    if (before != NULL) {
        rpc_call_unref(before);
    }
    peer_try_send(call, base_view_of("held"));
    echo_leave(state);
}

static inline void echo_finish(void *ctx, rpc_call *call, base_view message)
{
    echo_call *state = echo_enter(ctx, call);
    char text[8192] = {0};
    assert_true(message.n_bytes < sizeof text);
    memcpy(text, message.data, message.n_bytes);
    rpc_call_finish(call, RPC_INVALID_ARGUMENT, text);
    rpc_call_finish(call, RPC_OK, NULL);
    echo_leave(state);
}

static inline void echo_close(void *ctx, rpc_call *call)
{
    echo_seen *seen = ctx;
    echo_call *state = echo_enter(seen, call);
    rpc_call_set_user(call, NULL);
    base_heap.put(base_heap.ctx, state);
    atomic_fetch_add(&seen->n_closed, 1);
}

static inline base_status echo_server_try(echo_seen *seen, const rpc_server_options *options,
                                          rpc_server **server_out)
{
    const rpc_method methods[] = {
        {.path = "/test.Echo/Unary", .ctx = seen, .on_message = echo_unary, .on_close = echo_close},
        {.path = "/test.Echo/Count",
         .ctx = seen,
         .on_message = echo_count,
         .on_drained = echo_count_on,
         .on_close = echo_close},
        {.path = "/test.Echo/Bidi",
         .client_streams = true,
         .ctx = seen,
         .on_message = echo_send_back,
         .on_half_close = echo_half_close,
         .on_close = echo_close},
        {.path = "/test.Echo/Hold", .ctx = seen, .on_message = echo_hold, .on_close = echo_close},
        {.path = "/test.Echo/Finish",
         .ctx = seen,
         .on_message = echo_finish,
         .on_close = echo_close},
    };
    return rpc_server_create(options, methods, sizeof methods / sizeof methods[0], server_out);
}

static inline rpc_server *echo_server(echo_seen *seen, const char *listen)
{
    const rpc_server_options options = {.listen = listen,
                                        .n_pollers = 2,
                                        .max_queued = ECHO_MAX_QUEUED,
                                        .reflection = true,
                                        .health = true};
    rpc_server *server = NULL;
    CHECK_STATUS(echo_server_try(seen, &options, &server), BASE_OK);
    return server;
}

/* The latest call of Hold; its reference goes to the caller. */
static inline rpc_call *echo_take_held(echo_seen *seen)
{
    rpc_call *held = atomic_exchange(&seen->held, NULL);
    assert_non_null(held);
    return held;
}

/* Ends the test's use of seen: no handler ran twice at once, no reference is left. */
static inline void echo_end(echo_seen *seen)
{
    rpc_call *held = atomic_exchange(&seen->held, NULL);
    if (held != NULL) {
        rpc_call_unref(held);
    }
    assert_int_equal(atomic_load(&seen->n_overlaps), 0);
}

#endif /* TESTS_SUPPORT_RPC_ECHO_H */
