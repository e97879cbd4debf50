/* proto/health.h - the service grpc.health.v1.Health, for probes and balancers.
 *
 * Knows "" (the server) and each service that a method path names.  Check of another name ends with
 * NOT_FOUND; Watch of one says SERVICE_UNKNOWN and stays open.  Threads: any. */
#ifndef PROTO_HEALTH_H
#define PROTO_HEALTH_H

#include "base/alloc.h"
#include "base/status.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stddef.h>

#define RPC_HEALTH_METHODS 2

typedef struct rpc_health rpc_health;

/* Starts as NOT_SERVING.  Paths are copied; mem is copied and used until the destroy.
 * Errors: BAD_INPUT (a path without a service), NO_MEMORY. */
BASE_MUST_CHECK base_status rpc_health_create(const rpc_method *methods, size_t n_methods,
                                              const base_alloc *mem, rpc_health **health_out);
/* The methods to serve, with their ctx; the paths are constants. */
void rpc_health_methods(rpc_health *health, rpc_method methods_out[RPC_HEALTH_METHODS]);
/* Tells all watchers of known names. */
void rpc_health_set(rpc_health *health, bool serving);
/* NOT_SERVING for good; ends each watch, now and later, with UNAVAILABLE. */
void rpc_health_drain(rpc_health *health);
/* After the last call has closed.  NULL is allowed. */
void rpc_health_destroy(rpc_health *health);

#endif /* PROTO_HEALTH_H */
