#include "proto/rpc_grpc_call.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "proto/rpc_address.h"

#include <grpc/grpc_security.h>
#include <grpc/support/time.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define LONGEST_TIMEOUT_MS ((int64_t)1 << 40) /* 35 years: as good as none */

typedef struct client_call client_call;

struct rpc_channel {
    grpc_channel *core;
    grpc_completion_queue *queue;
    pthread_t poller;
    bool has_poller;

    pthread_mutex_t mutex; /* guards the list; taken before the mutex of a call */
    pthread_cond_t emptied;
    client_call *calls; /* those that core still has; the list holds a reference to each */
};

struct client_call {
    rpc_call call; /* first */
    rpc_channel *channel;
    rpc_client_handlers handlers;
    client_call *prev;
    client_call *next;
    /* Core writes these. */
    grpc_metadata_array headers;
    grpc_metadata_array trailers;
    grpc_status_code status;
    grpc_slice status_text;
};

/* ---- the role of a client's call ---- */

static void client_message(rpc_call *call, base_view message)
{
    const rpc_client_handlers *handlers = &((client_call *)call)->handlers;
    if (handlers->on_message != NULL) {
        handlers->on_message(handlers->ctx, call, message);
    }
}

static void client_drained(rpc_call *call)
{
    const rpc_client_handlers *handlers = &((client_call *)call)->handlers;
    if (handlers->on_drained != NULL) {
        handlers->on_drained(handlers->ctx, call);
    }
}

static void client_close(rpc_call *call)
{
    client_call *cc = (client_call *)call;
    char text[RPC_MAX_STATUS_BYTES + 1];
    size_t n_bytes = GRPC_SLICE_LENGTH(cc->status_text);

    n_bytes = n_bytes < RPC_MAX_STATUS_BYTES ? n_bytes : RPC_MAX_STATUS_BYTES;
    memcpy(text, GRPC_SLICE_START_PTR(cc->status_text), n_bytes);
    text[n_bytes] = '\0';
    cc->handlers.on_status(cc->handlers.ctx, call, (rpc_code)cc->status, text);
}

static void client_released(rpc_call *call)
{
    client_call *cc = (client_call *)call;
    rpc_channel *channel = cc->channel;

    grpc_metadata_array_destroy(&cc->headers);
    grpc_metadata_array_destroy(&cc->trailers);
    grpc_slice_unref(cc->status_text);
    (void)pthread_mutex_lock(&channel->mutex);
    if (cc->prev != NULL) {
        cc->prev->next = cc->next;
    } else {
        channel->calls = cc->next;
    }
    if (cc->next != NULL) {
        cc->next->prev = cc->prev;
    }
    if (channel->calls == NULL) {
        (void)pthread_cond_broadcast(&channel->emptied);
    }
    (void)pthread_mutex_unlock(&channel->mutex);
    rpc_call_unref(call);
}

static const rpc_call_role client_role = {
    .is_server = false,
    .message = client_message,
    .drained = client_drained,
    .close = client_close,
    .released = client_released,
};

/* ---- calls ---- */

static gpr_timespec deadline_of(int64_t timeout_ms)
{
    if (timeout_ms > LONGEST_TIMEOUT_MS) {
        return gpr_inf_future(GPR_CLOCK_MONOTONIC);
    }
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                        gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
}

static void begin_call(client_call *cc)
{
    rpc_call *call = &cc->call;
    grpc_op ops[2];

    (void)pthread_mutex_lock(&call->mutex);
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &cc->headers;
    call->headers_sent = true;
    rpc_call_start_batch(call, ops, 2, RPC_TAG_START);

    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[0].data.recv_status_on_client.trailing_metadata = &cc->trailers;
    ops[0].data.recv_status_on_client.status = &cc->status;
    ops[0].data.recv_status_on_client.status_details = &cc->status_text;
    rpc_call_start_batch(call, ops, 1, RPC_TAG_CLOSE);
    rpc_call_start_receive(call);
    (void)pthread_mutex_unlock(&call->mutex);
}

base_status rpc_client_start(rpc_channel *channel, const char *path, int64_t timeout_ms,
                             int32_t max_queued, const rpc_client_handlers *handlers,
                             rpc_call **call_out)
{
    if (path == NULL || path[0] != '/') {
        return BASE_FAIL(BASE_BAD_INPUT, "method path '%s', want /SERVICE/METHOD",
                         path == NULL ? "(null)" : path);
    }
    if (timeout_ms < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "timeout_ms %lld, allowed 1 and more",
                         (long long)timeout_ms);
    }
    if (max_queued < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_queued %d, allowed 1 and more", (int)max_queued);
    }
    if (handlers->on_status == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "handlers lack on_status");
    }
    client_call *cc = base_heap.get(base_heap.ctx, sizeof *cc);
    if (cc == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "rpc call");
    }
    rpc_call_init(&cc->call, &client_role, max_queued);
    cc->channel = channel;
    cc->handlers = *handlers;
    grpc_metadata_array_init(&cc->headers);
    grpc_metadata_array_init(&cc->trailers);
    cc->status = GRPC_STATUS_UNKNOWN;
    cc->status_text = grpc_empty_slice();
    if (timeout_ms <= LONGEST_TIMEOUT_MS) {
        cc->call.deadline_us = base_now_us() + timeout_ms * 1000;
    }
    /* Who calls again has waited already: core's own pause after failures is cut short. */
    if (grpc_channel_check_connectivity_state(channel->core, 0) == GRPC_CHANNEL_TRANSIENT_FAILURE) {
        grpc_channel_reset_connect_backoff(channel->core);
    }
    grpc_slice method = grpc_slice_from_copied_string(path);
    cc->call.core =
        grpc_channel_create_call(channel->core, NULL, GRPC_PROPAGATE_DEFAULTS, channel->queue,
                                 method, NULL, deadline_of(timeout_ms), NULL);
    grpc_slice_unref(method);

    rpc_call_ref(&cc->call); /* the list's */
    (void)pthread_mutex_lock(&channel->mutex);
    cc->next = channel->calls;
    if (cc->next != NULL) {
        cc->next->prev = cc;
    }
    channel->calls = cc;
    (void)pthread_mutex_unlock(&channel->mutex);
    *call_out = &cc->call;
    begin_call(cc);
    return BASE_OK;
}

void rpc_client_half_close(rpc_call *call)
{
    (void)pthread_mutex_lock(&call->mutex);
    call->end_wanted = true;
    rpc_call_pump(call);
    (void)pthread_mutex_unlock(&call->mutex);
}

void rpc_client_cancel(rpc_call *call)
{
    (void)pthread_mutex_lock(&call->mutex);
    if (call->core != NULL) {
        (void)grpc_call_cancel(call->core, NULL);
    }
    (void)pthread_mutex_unlock(&call->mutex);
}

/* ---- channels ---- */

static void *poller_main(void *arg)
{
    rpc_channel *channel = arg;

    (void)pthread_setname_np(pthread_self(), "rpc-client");
    for (;;) {
        const grpc_event event =
            grpc_completion_queue_next(channel->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type == GRPC_QUEUE_SHUTDOWN) {
            return NULL;
        }
        RPC_TAG_TAKE(event.tag);
        rpc_call_on_tag(event.tag, event.success != 0);
    }
}

/* Core's name for the address.  Numbers do not need its name resolver. */
static void name_target(const rpc_address *address, char *name, size_t n_bytes)
{
    unsigned char number[sizeof(struct in6_addr)];
    const int port = (int)address->port;

    if (address->is_unix) {
        (void)snprintf(name, n_bytes, "unix:%s", address->path);
    } else if (strchr(address->host, ':') != NULL) {
        (void)snprintf(name, n_bytes, "ipv6:[%s]:%d", address->host, port);
    } else if (inet_pton(AF_INET, address->host, number) == 1) {
        (void)snprintf(name, n_bytes, "ipv4:%s:%d", address->host, port);
    } else {
        (void)snprintf(name, n_bytes, "dns:///%s:%d", address->host, port);
    }
}

static void create_core(rpc_channel *channel, const char *target)
{
    rpc_args args;

    rpc_args_init(&args);
    rpc_args_add(&args, GRPC_ARG_ENABLE_HTTP_PROXY, 0); /* ours is a cluster's network */
    rpc_args_add(&args, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    rpc_args_add(&args, GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    rpc_args_add(&args, GRPC_ARG_ENABLE_RETRIES, 0); /* callers know what may be repeated */
    rpc_args_add(&args, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    rpc_args_add(&args, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
    rpc_args_add(&args, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000); /* the time to connect in */
    rpc_args_add(&args, GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 1000);
    rpc_args_add(&args, GRPC_ARG_KEEPALIVE_TIME_MS, 10000); /* the server allows one in 5 s */
    const grpc_channel_args all = rpc_args_channel(&args);
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    channel->core = grpc_channel_create(target, credentials, &all);
    grpc_channel_credentials_release(credentials);
    channel->queue = grpc_completion_queue_create_for_next(NULL);
}

base_status rpc_channel_create(const char *target, rpc_channel **channel_out)
{
    base_status st = BASE_OK;
    rpc_channel *channel = NULL;
    rpc_address address;
    char name[sizeof "ipv6:[]:65535 " + RPC_MAX_HOST_BYTES];

    BASE_TRY(st, out, rpc_address_parse(target, &address));
    if (!address.is_unix && address.port == 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "address '%s': port 0, allowed 1..65535", target);
        goto out;
    }
    channel = base_heap.get(base_heap.ctx, sizeof *channel);
    if (channel == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "rpc channel");
        goto out;
    }
    (void)pthread_mutex_init(&channel->mutex, NULL);
    (void)pthread_cond_init(&channel->emptied, NULL);
    name_target(&address, name, sizeof name);
    create_core(channel, name);
    const int rc = pthread_create(&channel->poller, NULL, poller_main, channel);
    if (rc != 0) {
        st = BASE_FAIL(BASE_NO_MEMORY, "no thread for a channel: %s", strerror(rc));
        goto out;
    }
    channel->has_poller = true;
    *channel_out = channel;
    channel = NULL;

out:
    rpc_channel_destroy(channel);
    return st;
}

void rpc_channel_destroy(rpc_channel *channel)
{
    if (channel == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&channel->mutex);
    for (client_call *cc = channel->calls; cc != NULL; cc = cc->next) {
        rpc_client_cancel(&cc->call);
    }
    while (channel->calls != NULL) {
        (void)pthread_cond_wait(&channel->emptied, &channel->mutex);
    }
    (void)pthread_mutex_unlock(&channel->mutex);
    grpc_completion_queue_shutdown(channel->queue);
    if (channel->has_poller) {
        (void)pthread_join(channel->poller, NULL);
    }
    grpc_channel_destroy(channel->core);
    grpc_completion_queue_destroy(channel->queue);
    (void)pthread_cond_destroy(&channel->emptied);
    (void)pthread_mutex_destroy(&channel->mutex);
    base_heap.put(base_heap.ctx, channel);
}
