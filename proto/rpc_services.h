/* proto/rpc_services.h - the set of services that a list of method paths names. */
#ifndef PROTO_RPC_SERVICES_H
#define PROTO_RPC_SERVICES_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"
#include "proto/rpc.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct rpc_services {
    base_view *names; /* "ropewalk.v1.Inference", each once, in order of first mention */
    size_t n_names;
    base_alloc mem;
} rpc_services;

/* Copies the names.  On BASE_OK rpc_services_reset ends it.
 * Errors: BAD_INPUT (a path not of the form "/SERVICE/METHOD"), NO_MEMORY. */
BASE_MUST_CHECK base_status rpc_services_init(const rpc_method *methods, size_t n_methods,
                                              const base_alloc *mem, rpc_services *services_out);
void rpc_services_reset(rpc_services *services); /* zeroed ones are allowed */
bool rpc_services_has(const rpc_services *services, base_view name);

#endif /* PROTO_RPC_SERVICES_H */
