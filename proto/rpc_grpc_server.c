#include "proto/rpc_grpc_call.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/health.h"
#include "proto/reflection.h"
#include "proto/rpc_listener.h"
#include "proto/rpc_services.h"

#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

#define MAX_POLLERS   16
#define N_POSTED      64 /* calls that core may hand out before a poller has run */
#define MAX_PATH      256
#define END_WAIT_MS   2000
#define MAX_STREAMS   10000 /* per connection */
#define PING_LEAST_MS 5000 /* gateways ping idle connections; core's default of 300 s ejects them */

struct rpc_server {
    grpc_server *core;
    grpc_completion_queue *queue;
    grpc_server_credentials *credentials;
    rpc_listener *listener;
    rpc_health *health;         /* NULL: not served */
    rpc_reflection *reflection; /* NULL: not served */
    rpc_method *methods;        /* paths are copies */
    size_t n_methods;
    int32_t max_queued;
    pthread_t pollers[MAX_POLLERS];
    int32_t n_pollers;
    bool started;
    rpc_tag shutdown_tag;

    pthread_mutex_t mutex; /* guards the two below */
    pthread_cond_t changed;
    bool shut_down; /* core has no call left */
    int32_t n_posted;
};

typedef struct server_call {
    rpc_call call;            /* first */
    const rpc_method *method; /* NULL: nobody serves the path */
    grpc_call_details details;
    grpc_metadata_array metadata;
    int cancelled; /* core writes it; that the call is over says enough */
} server_call;

/* ---- the role of a server's call ---- */

static void server_message(rpc_call *call, base_view message)
{
    const rpc_method *method = ((server_call *)call)->method;
    method->on_message(method->ctx, call, message);
}

static void server_half_close(rpc_call *call)
{
    const rpc_method *method = ((server_call *)call)->method;
    if (!method->client_streams) {
        rpc_call_finish(call, RPC_INTERNAL, "the request message is missing");
    } else if (method->on_half_close != NULL) {
        method->on_half_close(method->ctx, call);
    }
}

static void server_drained(rpc_call *call)
{
    const rpc_method *method = ((server_call *)call)->method;
    if (method != NULL && method->on_drained != NULL) {
        method->on_drained(method->ctx, call);
    }
}

static void server_close(rpc_call *call)
{
    const rpc_method *method = ((server_call *)call)->method;
    if (method != NULL && method->on_close != NULL) {
        method->on_close(method->ctx, call);
    }
}

static void server_released(rpc_call *call)
{
    server_call *sc = (server_call *)call;
    grpc_metadata_array_destroy(&sc->metadata);
    grpc_call_details_destroy(&sc->details);
}

static const rpc_call_role server_role = {
    .is_server = true,
    .message = server_message,
    .half_close = server_half_close,
    .drained = server_drained,
    .close = server_close,
    .released = server_released,
};

void rpc_call_finish(rpc_call *call, rpc_code code, const char *text)
{
    size_t n_bytes = text == NULL ? 0 : strnlen(text, RPC_MAX_STATUS_BYTES + 1);
    if (n_bytes > RPC_MAX_STATUS_BYTES) {
        n_bytes = RPC_MAX_STATUS_BYTES;
        while (n_bytes > 0 && ((unsigned char)text[n_bytes] & 0xC0) == 0x80) {
            n_bytes--; /* not in the middle of a UTF-8 character */
        }
    }
    (void)pthread_mutex_lock(&call->mutex);
    if (!call->closed && !call->end_wanted && call->core != NULL) {
        call->end_wanted = true;
        call->end_code = code;
        call->end_text = grpc_slice_from_copied_buffer(text, n_bytes);
        rpc_call_pump(call);
    }
    (void)pthread_mutex_unlock(&call->mutex);
}

/* ---- calls coming in ---- */

/* Asks core for one more call.  Returns false if that cannot be. */
static bool post_one(rpc_server *server)
{
    server_call *sc = base_heap.get(base_heap.ctx, sizeof *sc);
    if (sc == NULL) {
        return false;
    }
    rpc_call_init(&sc->call, &server_role, server->max_queued);
    grpc_call_details_init(&sc->details);
    grpc_metadata_array_init(&sc->metadata);
    rpc_tag *tag = &sc->call.tags[RPC_TAG_NEW];
    RPC_TAG_GIVE(tag);
    const grpc_call_error error =
        grpc_server_request_call(server->core, &sc->call.core, &sc->details, &sc->metadata,
                                 server->queue, server->queue, tag);
    if (error != GRPC_CALL_OK) {
        server_released(&sc->call);
        rpc_call_unref(&sc->call);
        return false;
    }
    return true;
}

/* Brings the posted calls up to N_POSTED: a call that finds none posted would wait without bound. */
static void post_calls(rpc_server *server)
{
    (void)pthread_mutex_lock(&server->mutex);
    while (server->n_posted < N_POSTED && post_one(server)) {
        server->n_posted++;
    }
    (void)pthread_mutex_unlock(&server->mutex);
}

static int64_t deadline_us_of(gpr_timespec deadline)
{
    if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) {
        return INT64_MAX;
    }
    const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    return base_now_us() + left.tv_sec * 1000000 + left.tv_nsec / 1000;
}

static void begin_call(rpc_server *server, server_call *sc)
{
    rpc_call *call = &sc->call;
    grpc_op op;

    for (size_t i = 0; i < server->n_methods && sc->method == NULL; i++) {
        if (grpc_slice_str_cmp(sc->details.method, server->methods[i].path) == 0) {
            sc->method = &server->methods[i];
        }
    }
    call->deadline_us = deadline_us_of(sc->details.deadline);
    call->one_message = sc->method != NULL && !sc->method->client_streams;

    /* A reference of our own: the first batch may come back before the last has started. */
    rpc_call_ref(call);
    (void)pthread_mutex_lock(&call->mutex);
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    op.data.recv_close_on_server.cancelled = &sc->cancelled;
    rpc_call_start_batch(call, &op, 1, RPC_TAG_CLOSE);
    if (sc->method != NULL) {
        rpc_call_start_receive(call);
    }
    (void)pthread_mutex_unlock(&call->mutex);
    if (sc->method == NULL) {
        char text[64 + MAX_PATH];
        const size_t n_bytes = GRPC_SLICE_LENGTH(sc->details.method);
        (void)snprintf(text, sizeof text, "unknown method %.*s",
                       (int)(n_bytes < MAX_PATH ? n_bytes : MAX_PATH),
                       (const char *)GRPC_SLICE_START_PTR(sc->details.method));
        rpc_call_finish(call, RPC_UNIMPLEMENTED, text);
    }
    rpc_call_unref(call);
}

static void on_new(rpc_server *server, server_call *sc, bool ok)
{
    (void)pthread_mutex_lock(&server->mutex);
    server->n_posted--;
    (void)pthread_mutex_unlock(&server->mutex);
    if (ok) {
        post_calls(server);
        begin_call(server, sc);
    } else {
        server_released(&sc->call); /* the server shuts down */
    }
    rpc_call_unref(&sc->call);
}

static void poll_until_end(rpc_server *server)
{
    for (;;) {
        const grpc_event event =
            grpc_completion_queue_next(server->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN) {
            return;
        }
        rpc_tag *tag = event.tag;
        RPC_TAG_TAKE(tag);
        if (tag->kind == RPC_TAG_NEW) {
            on_new(server, (server_call *)tag->call, event.success != 0);
        } else if (tag->kind == RPC_TAG_SHUTDOWN) {
            (void)pthread_mutex_lock(&server->mutex);
            server->shut_down = true;
            (void)pthread_cond_broadcast(&server->changed);
            (void)pthread_mutex_unlock(&server->mutex);
        } else {
            rpc_call_on_tag(tag, event.success != 0);
        }
    }
}

static void *poller_main(void *arg)
{
    (void)pthread_setname_np(pthread_self(), "rpc-server");
    poll_until_end(arg);
    return NULL;
}

static void on_connection(void *ctx, int fd)
{
    rpc_server *server = ctx;
    grpc_server_add_channel_from_fd(server->core, fd, server->credentials);
}

/* ---- life ---- */

static base_status check_options(const rpc_server_options *options, const rpc_method *methods,
                                 size_t n_methods)
{
    if (options->n_pollers < 1 || options->n_pollers > MAX_POLLERS) {
        return BASE_FAIL(BASE_BAD_INPUT, "n_pollers %d, allowed 1..%d", (int)options->n_pollers,
                         MAX_POLLERS);
    }
    if (options->max_queued < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_queued %d, allowed 1 and more",
                         (int)options->max_queued);
    }
    for (size_t i = 0; i < n_methods; i++) {
        if (methods[i].path == NULL || methods[i].on_message == NULL) {
            return BASE_FAIL(BASE_BAD_INPUT, "method %zu lacks %s", i,
                             methods[i].path == NULL ? "path" : "on_message");
        }
    }
    return BASE_OK;
}

static base_status add_method(rpc_server *server, const rpc_method *method)
{
    const size_t n_bytes = strlen(method->path) + 1;
    char *path = base_heap.get(base_heap.ctx, n_bytes);
    if (path == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "method path of %zu bytes", n_bytes);
    }
    memcpy(path, method->path, n_bytes);
    server->methods[server->n_methods] = *method;
    server->methods[server->n_methods++].path = path;
    return BASE_OK;
}

static base_status add_methods(rpc_server *server, const rpc_server_options *options,
                               const rpc_method *methods, size_t n_methods)
{
    base_status st = BASE_OK;
    rpc_method extra[RPC_HEALTH_METHODS + RPC_REFLECTION_METHODS];
    size_t n_extra = 0;
    rpc_services checked;

    BASE_TRY(st, out, rpc_services_init(methods, n_methods, &base_heap, &checked));
    rpc_services_reset(&checked);
    const size_t n_bytes =
        (n_methods + RPC_HEALTH_METHODS + RPC_REFLECTION_METHODS) * sizeof server->methods[0];
    server->methods = base_heap.get(base_heap.ctx, n_bytes);
    if (server->methods == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "method table of %zu bytes", n_bytes);
        goto out;
    }
    for (size_t i = 0; i < n_methods; i++) {
        BASE_TRY(st, out, add_method(server, &methods[i]));
    }
    if (options->health) {
        BASE_TRY(st, out, rpc_health_create(methods, n_methods, &base_heap, &server->health));
        rpc_health_methods(server->health, extra);
        n_extra = RPC_HEALTH_METHODS;
    }
    for (size_t i = 0; i < n_extra; i++) {
        BASE_TRY(st, out, add_method(server, &extra[i]));
    }
    if (options->reflection) {
        /* Lists health too, so it comes last. */
        BASE_TRY(st, out,
                 rpc_reflection_create(server->methods, server->n_methods, &base_heap,
                                       &server->reflection));
        rpc_reflection_methods(server->reflection, extra);
        for (size_t i = 0; i < RPC_REFLECTION_METHODS; i++) {
            BASE_TRY(st, out, add_method(server, &extra[i]));
        }
    }

out:
    return st;
}

static void create_core(rpc_server *server)
{
    rpc_args args;

    rpc_args_init(&args);
    rpc_args_add(&args, GRPC_ARG_ALLOW_REUSEPORT, 0); /* two servers may not share a port */
    rpc_args_add(&args, GRPC_ARG_MAX_CONCURRENT_STREAMS, MAX_STREAMS);
    rpc_args_add(&args, GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
    rpc_args_add(&args, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_LEAST_MS);
    const grpc_channel_args all = rpc_args_channel(&args);
    server->core = grpc_server_create(&all, NULL);
    server->queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server->core, server->queue, NULL);
    server->credentials = grpc_insecure_server_credentials_create();
    grpc_server_start(server->core);
    server->started = true;
}

base_status rpc_server_create(const rpc_server_options *options, const rpc_method *methods,
                              size_t n_methods, rpc_server **server_out)
{
    base_status st = BASE_OK;
    rpc_server *server = NULL;
    pthread_condattr_t monotonic;

    BASE_TRY(st, out, check_options(options, methods, n_methods));
    server = base_heap.get(base_heap.ctx, sizeof *server);
    if (server == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "rpc server");
        goto out;
    }
    server->max_queued = options->max_queued;
    server->shutdown_tag = (rpc_tag){.kind = RPC_TAG_SHUTDOWN};
    (void)pthread_mutex_init(&server->mutex, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&server->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);

    BASE_TRY(st, out, add_methods(server, options, methods, n_methods));
    create_core(server);
    post_calls(server);
    while (server->n_pollers < options->n_pollers) {
        const int rc =
            pthread_create(&server->pollers[server->n_pollers], NULL, poller_main, server);
        if (rc != 0) {
            st = BASE_FAIL(BASE_IO, "no thread for a poller: %s", strerror(rc));
            goto out;
        }
        server->n_pollers++;
    }
    BASE_TRY(st, out,
             rpc_listener_create(options->listen, on_connection, server, &server->listener));
    *server_out = server;
    server = NULL;

out:
    rpc_server_destroy(server, 0);
    return st;
}

int32_t rpc_server_port(const rpc_server *server)
{
    return rpc_listener_port(server->listener);
}

void rpc_server_set_serving(rpc_server *server, bool serving)
{
    if (server->health != NULL) {
        rpc_health_set(server->health, serving);
    }
}

/* Returns whether core has no call left. */
static bool wait_shut_down(rpc_server *server, int64_t wait_ms)
{
    struct timespec until;
    int rc = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += wait_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&server->mutex);
    while (!server->shut_down && rc == 0) {
        rc = pthread_cond_timedwait(&server->changed, &server->mutex, &until);
    }
    const bool shut_down = server->shut_down;
    (void)pthread_mutex_unlock(&server->mutex);
    return shut_down;
}

/* Returns false if a call would not end. */
static bool stop_core(rpc_server *server, int64_t grace_ms)
{
    RPC_TAG_GIVE(&server->shutdown_tag);
    grpc_server_shutdown_and_notify(server->core, server->queue, &server->shutdown_tag);
    if (server->n_pollers == 0) {
        grpc_completion_queue_shutdown(server->queue);
        poll_until_end(server); /* creation failed half-way */
        return true;
    }
    if (!wait_shut_down(server, grace_ms)) {
        grpc_server_cancel_all_calls(server->core);
        if (!wait_shut_down(server, END_WAIT_MS)) {
            return false;
        }
    }
    grpc_completion_queue_shutdown(server->queue);
    for (int32_t i = 0; i < server->n_pollers; i++) {
        (void)pthread_join(server->pollers[i], NULL);
    }
    return true;
}

void rpc_server_destroy(rpc_server *server, int64_t grace_ms)
{
    if (server == NULL) {
        return;
    }
    if (server->health != NULL) {
        rpc_health_drain(server->health); /* open watches would hold up the end */
    }
    rpc_listener_destroy(server->listener);
    if (server->started) {
        if (!stop_core(server, grace_ms > 0 ? grace_ms : 0)) {
            /* A handler is stuck in there; freeing what it uses would be worse than a leak. */
            BASE_ERROR("rpc server: a call did not end %d ms after its cancellation", END_WAIT_MS);
            return;
        }
        grpc_server_destroy(server->core);
        grpc_completion_queue_destroy(server->queue);
        grpc_server_credentials_release(server->credentials);
    }
    rpc_health_destroy(server->health);
    rpc_reflection_destroy(server->reflection);
    for (size_t i = 0; i < server->n_methods; i++) {
        base_heap.put(base_heap.ctx, (void *)server->methods[i].path);
    }
    base_heap.put(base_heap.ctx, server->methods);
    (void)pthread_cond_destroy(&server->changed);
    (void)pthread_mutex_destroy(&server->mutex);
    base_heap.put(base_heap.ctx, server);
}
