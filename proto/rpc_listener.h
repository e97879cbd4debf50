/* proto/rpc_listener.h - accepts connections and hands their sockets on.
 *
 * gRPC's own listener stops for good after one failed accept (CVE-2023-4785), so the server does
 * not use it.  This one waits a little when descriptors run out, and goes on. */
#ifndef PROTO_RPC_LISTENER_H
#define PROTO_RPC_LISTENER_H

#include "base/status.h"

#include <stdint.h>

typedef struct rpc_listener rpc_listener;

/* Takes over fd: connected, non-blocking, close-on-exec.  Runs on the listener's thread. */
typedef void rpc_connection_fn(void *ctx, int fd);

/* Binds every address that listen names (rpc.h tells its forms) and starts the accepting thread,
 * which inherits the caller's signal mask.
 * A unix socket's file that nobody serves any more is replaced.
 * Errors: BAD_INPUT, IO (address and reason), NO_MEMORY. */
BASE_MUST_CHECK base_status rpc_listener_create(const char *listen,
                                                rpc_connection_fn *on_connection, void *ctx,
                                                rpc_listener **listener_out);
/* 0 for unix sockets. */
int32_t rpc_listener_port(const rpc_listener *listener);
/* Closes the sockets and ends the thread; at once, but for a running on_connection.  Connections
 * that were handed on stay.  NULL is allowed. */
void rpc_listener_destroy(rpc_listener *listener);

#endif /* PROTO_RPC_LISTENER_H */
