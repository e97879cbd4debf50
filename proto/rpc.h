/* proto/rpc.h - calls over the network in our words; no gRPC type is visible.
 *
 * A server has methods; a call is one running RPC on either side.  Messages are opaque bytes:
 * codecs (inference_codec.h, group_codec.h) give them meaning.
 *
 * Threads.  Handlers run on the pollers of their server or channel, several calls at once; the
 * handlers of ONE call never run at the same time, and on_close is the last of them, exactly once.
 * A handler must not block longer than a tokenisation, must not destroy its server or channel, and
 * must not wait for another call (rpc_client_unary) of its channel.  rpc_call_* may be called from
 * any thread.  Our threads and gRPC's inherit the signal mask of the thread that makes them: block
 * signals before rpc_init.
 *
 * Life.  A call is reference counted.  Handlers get a borrowed reference; who keeps the call
 * beyond the handler takes one with rpc_call_ref and gives it back with rpc_call_unref.  After on_close
 * sends and finishes return CANCELLED or do nothing, so late holders are safe. */
#ifndef PROTO_RPC_H
#define PROTO_RPC_H

#include "base/status.h"
#include "base/view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RPC_MAX_MESSAGE_BYTES ((size_t)64 << 20) /* 1M tokens are 3-5 MB */
#define RPC_MAX_STATUS_BYTES  1024 /* longer texts are cut: headers have a limit too */

/* gRPC's status codes, as on the wire. */
typedef enum rpc_code {
    RPC_OK = 0,
    RPC_CANCELLED = 1,
    RPC_UNKNOWN = 2,
    RPC_INVALID_ARGUMENT = 3,
    RPC_DEADLINE_EXCEEDED = 4,
    RPC_NOT_FOUND = 5,
    RPC_ALREADY_EXISTS = 6,
    RPC_PERMISSION_DENIED = 7,
    RPC_RESOURCE_EXHAUSTED = 8,
    RPC_FAILED_PRECONDITION = 9,
    RPC_ABORTED = 10,
    RPC_OUT_OF_RANGE = 11,
    RPC_UNIMPLEMENTED = 12,
    RPC_INTERNAL = 13,
    RPC_UNAVAILABLE = 14,
    RPC_DATA_LOSS = 15,
    RPC_UNAUTHENTICATED = 16,
} rpc_code;

const char *rpc_code_name(rpc_code code); /* "INVALID_ARGUMENT"; "?" outside the list */
rpc_code rpc_code_of(base_status st); /* the one translation of our codes (design.md section 11) */

/* Starts and ends the library: once per process, after MPI_Init and any fork.  gRPC's own log lines
 * (errors, unless GRPC_VERBOSITY says more) go to base/log.h. */
void rpc_init(void);
void rpc_shutdown(void);

typedef struct rpc_call rpc_call;
typedef struct rpc_server rpc_server;
typedef struct rpc_channel rpc_channel;

void rpc_call_ref(rpc_call *call);
void rpc_call_unref(rpc_call *call);

/* A pointer of the owner's, set by the first handler; NULL at first. */
void rpc_call_set_user(rpc_call *call, void *user);
void *rpc_call_user(const rpc_call *call);

/* Queues a message.  Never blocks.  Whole messages go out in order.
 * Errors: CANCELLED (the call has ended), EXHAUSTED (max_queued messages wait: the reader is slow),
 * NO_MEMORY. */
BASE_MUST_CHECK base_status rpc_call_send(rpc_call *call, base_view message);
/* Messages queued and not yet handed to the network, the one under way included. */
int32_t rpc_call_n_queued(rpc_call *call);

/* ---- server ---- */

typedef struct rpc_method {
    const char *path;    /* "/ropewalk.v1.Inference/Generate" */
    bool client_streams; /* more than one message may come in */
    void *ctx;           /* passed to the handlers */
    /* A message came; the bytes live until the handler returns. */
    void (*on_message)(void *ctx, rpc_call *call, base_view message);
    /* The client will send no more; only where client_streams.  May be NULL. */
    void (*on_half_close)(void *ctx, rpc_call *call);
    /* The queue has room again after sends: n_queued fell to zero.  May be NULL. */
    void (*on_drained)(void *ctx, rpc_call *call);
    /* The call is over: finished, cancelled, deadline passed or peer lost.  Comes for every call,
     * also for one that ended before its first message.  May be NULL. */
    void (*on_close)(void *ctx, rpc_call *call);
} rpc_method;

typedef struct rpc_server_options {
    const char *listen; /* "HOST:PORT"; port 0 takes a free one; "unix:PATH" is allowed */
    int32_t n_pollers;  /* 1..16 */
    int32_t max_queued; /* messages a call may queue, >= 1 */
    bool reflection;    /* serve grpc.reflection.v1 and v1alpha over descriptors.bin */
    bool health;        /* serve grpc.health.v1 */
} rpc_server_options;

/* Listens and serves at once.  methods are copied (paths too); ctx pointers must outlive the server.
 * Health starts as NOT_SERVING for "" and for each service that a method path names.
 * Errors: BAD_INPUT (an option, named), IO (cannot listen: address and reason), NO_MEMORY. */
BASE_MUST_CHECK base_status rpc_server_create(const rpc_server_options *options,
                                              const rpc_method *methods, size_t n_methods,
                                              rpc_server **server_out);
/* The port in use; 0 for unix sockets. */
int32_t rpc_server_port(const rpc_server *server);
/* Sets health of "" and of every service. */
void rpc_server_set_serving(rpc_server *server, bool serving);
/* Ends the call with a status.  The first finish wins; queued messages go out before it.
 * text may be NULL; at most RPC_MAX_STATUS_BYTES of it travel. */
void rpc_call_finish(rpc_call *call, rpc_code code, const char *text);
/* Microseconds until the client's deadline; INT64_MAX without one. */
int64_t rpc_call_time_left_us(const rpc_call *call);

/* Refuses new calls, turns health NOT_SERVING, waits up to grace_ms for running calls, cancels the
 * rest, ends the pollers and frees the server.  Blocks at most grace_ms + 2 s.  NULL is allowed. */
void rpc_server_destroy(rpc_server *server, int64_t grace_ms);

/* ---- client ---- */

typedef struct rpc_client_handlers {
    void *ctx;
    void (*on_message)(void *ctx, rpc_call *call, base_view message);
    void (*on_drained)(void *ctx, rpc_call *call); /* may be NULL */
    /* The last event: the status of the call.  text is "" if there is none. */
    void (*on_status)(void *ctx, rpc_call *call, rpc_code code, const char *text);
} rpc_client_handlers;

/* Makes a channel to "HOST:PORT" (or "unix:PATH"); connecting happens at the first call.
 * Errors: BAD_INPUT, NO_MEMORY. */
BASE_MUST_CHECK base_status rpc_channel_create(const char *target, rpc_channel **channel_out);
/* Cancels what still runs, waits for its on_status, frees.  NULL is allowed. */
void rpc_channel_destroy(rpc_channel *channel);

/* Starts a call; handlers are copied.  The caller owns one reference to *call_out.  timeout_ms > 0
 * is the deadline of the whole call, or INT64_MAX for none (streams with heartbeats only).
 * A server that is not there ends the call with RPC_UNAVAILABLE.
 * max_queued as for servers.  Errors: BAD_INPUT, NO_MEMORY. */
BASE_MUST_CHECK base_status rpc_client_start(rpc_channel *channel, const char *path,
                                             int64_t timeout_ms, int32_t max_queued,
                                             const rpc_client_handlers *handlers,
                                             rpc_call **call_out);
void rpc_client_half_close(rpc_call *call); /* no more messages from us */
void rpc_client_cancel(rpc_call *call);

/* One request, one reply, blocking: start, send, half-close, wait.  reply is appended to *reply_out.
 * *code_out and text_out (RPC_MAX_STATUS_BYTES + 1 bytes) hold the status; both are set on BASE_OK, which
 * means that a status came, not that it is RPC_OK.  Blocks at most timeout_ms + 1 s. */
struct base_bytes;
BASE_MUST_CHECK base_status rpc_client_unary(rpc_channel *channel, const char *path,
                                             base_view request, int64_t timeout_ms,
                                             struct base_bytes *reply_out, rpc_code *code_out,
                                             char *text_out);

#endif /* PROTO_RPC_H */
