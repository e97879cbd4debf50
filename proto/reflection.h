/* proto/reflection.h - the services grpc.reflection.v1 and v1alpha: tools learn our .proto files.
 *
 * Lists what the server serves; hands out files by name or by a symbol in them.  Threads: any. */
#ifndef PROTO_REFLECTION_H
#define PROTO_REFLECTION_H

#include "base/alloc.h"
#include "base/status.h"
#include "proto/rpc.h"

#include <stddef.h>

#define RPC_REFLECTION_METHODS 2

typedef struct rpc_reflection rpc_reflection;

/* methods: what the server serves; names are copied.  mem is copied and used until the destroy.
 * Errors: BAD_INPUT (a path without a service), NO_MEMORY. */
BASE_MUST_CHECK base_status rpc_reflection_create(const rpc_method *methods, size_t n_methods,
                                                  const base_alloc *mem,
                                                  rpc_reflection **reflection_out);
/* The methods to serve, with their ctx; the paths are constants. */
void rpc_reflection_methods(rpc_reflection *reflection,
                            rpc_method methods_out[RPC_REFLECTION_METHODS]);
/* After the last call has closed.  NULL is allowed. */
void rpc_reflection_destroy(rpc_reflection *reflection);

#endif /* PROTO_REFLECTION_H */
