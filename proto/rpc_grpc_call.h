/* proto/rpc_grpc_call.h - one RPC on gRPC's core, the same for both sides.
 *
 * What core tells by its completion queue (a message, a send done, the end) becomes a flag of the
 * call.  The poller that finds nobody at work on the call works all flags off, one handler after
 * the other; the others only leave their flag.  So the handlers of a call never overlap, and no
 * poller waits for another.
 *
 * One message is read at a time: the next read starts when the handler has returned.  One batch of
 * sends is under way at a time; what a handler sends goes out when it returns, so that a reply and
 * its status travel together.
 *
 * Release.  Core's objects go as soon as the last handler has run and every tag has come back,
 * whoever still holds a reference; the plain memory goes with the last reference. */
#ifndef PROTO_RPC_GRPC_CALL_H
#define PROTO_RPC_GRPC_CALL_H

#include "proto/rpc.h"

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>

/* Core is not built with ThreadSanitizer: this tells it of the hand-over through the queue. */
#if defined(__SANITIZE_THREAD__)
void __tsan_acquire(void *tag);
void __tsan_release(void *tag);
#define RPC_TAG_GIVE(tag) __tsan_release(tag)
#define RPC_TAG_TAKE(tag) __tsan_acquire(tag)
#else
#define RPC_TAG_GIVE(tag) ((void)(tag))
#define RPC_TAG_TAKE(tag) ((void)(tag))
#endif

typedef enum rpc_tag_kind {
    RPC_TAG_SHUTDOWN, /* of a server: no call */
    RPC_TAG_NEW,      /* of a server: a call came in */
    RPC_TAG_START,    /* of a client: headers went out, headers came in */
    RPC_TAG_RECEIVE,
    RPC_TAG_SEND,
    RPC_TAG_CLOSE,
    RPC_N_TAGS,
} rpc_tag_kind;

typedef struct rpc_tag {
    rpc_call *call;
    rpc_tag_kind kind;
} rpc_tag;

/* What the two sides do differently.  close always exists; the rest may be NULL. */
typedef struct rpc_call_role {
    bool is_server;
    void (*message)(rpc_call *call, base_view message);
    void (*half_close)(rpc_call *call);
    void (*drained)(rpc_call *call);
    void (*close)(rpc_call *call);
    /* Core let go of the call; frees what core used.  No lock is held; exactly once. */
    void (*released)(rpc_call *call);
} rpc_call_role;

typedef struct rpc_message rpc_message; /* a queued one */

/* The first member of server_call and client_call. */
struct rpc_call {
    atomic_int n_refs; /* one per outstanding tag, one per holder */
    _Atomic(void *) user;
    const rpc_call_role *role;
    int32_t max_queued;
    int64_t deadline_us; /* base_now_us() time; INT64_MAX: none */
    rpc_tag tags[RPC_N_TAGS];

    /* Guards all below.  Held while batches start, as core wants them one by one. */
    pthread_mutex_t mutex;
    grpc_call *core; /* NULL before the start and after the release */
    int n_tags;      /* outstanding batches */

    rpc_message *first_message;
    rpc_message *last_message;
    int32_t n_queued; /* with the one in flight */
    grpc_byte_buffer *in_flight;
    bool headers_sent;
    bool sending;
    bool broken; /* a send failed: the end is near */
    bool end_wanted;
    bool end_sent;
    rpc_code end_code;   /* of a server */
    grpc_slice end_text; /* of a server */

    grpc_byte_buffer *received; /* core writes it */
    bool one_message;           /* read no second one */
    bool reads_done;

    bool at_work; /* a poller runs handlers */
    bool message_ready;
    bool half_close_ready;
    bool drained_ready;
    bool closed; /* core says that the call is over */
    bool close_done;
};

/* call is zeroed memory of base_heap that starts with an rpc_call.  Sets one reference. */
void rpc_call_init(rpc_call *call, const rpc_call_role *role, int32_t max_queued);

/* Start batches; the mutex is held and core is set. */
void rpc_call_start_batch(rpc_call *call, const grpc_op *ops, size_t n_ops, rpc_tag_kind kind);
void rpc_call_start_receive(rpc_call *call);
/* Starts the next send, if there is one and none is under way. */
void rpc_call_pump(rpc_call *call);

/* Takes what a tag brought; gives the tag's reference back.  Not for SHUTDOWN and NEW. */
void rpc_call_on_tag(rpc_tag *tag, bool ok);

/* ---- the library (rpc_grpc_library.c) ---- */

#define RPC_MAX_ARGS 24

/* Channel arguments that both sides share are set by rpc_args_init. */
typedef struct rpc_args {
    grpc_arg list[RPC_MAX_ARGS];
    size_t n_args;
} rpc_args;

void rpc_args_init(rpc_args *args);
void rpc_args_add(rpc_args *args, const char *key, int value);
grpc_channel_args rpc_args_channel(rpc_args *args);

#endif /* PROTO_RPC_GRPC_CALL_H */
