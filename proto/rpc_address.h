/* proto/rpc_address.h - "HOST:PORT" and "unix:PATH" taken apart.  Pure; any thread. */
#ifndef PROTO_RPC_ADDRESS_H
#define PROTO_RPC_ADDRESS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define RPC_MAX_HOST_BYTES 253
#define RPC_MAX_PATH_BYTES 107 /* of a unix socket's name */

typedef struct rpc_address {
    bool is_unix;
    char host[RPC_MAX_HOST_BYTES + 1]; /* name or number, IPv6 without its brackets */
    int32_t port;                      /* 0..65535 */
    char path[RPC_MAX_PATH_BYTES + 1]; /* when is_unix */
} rpc_address;

/* text may be NULL, which is refused.  An IPv6 number needs brackets: "[::1]:8000".
 * Errors: BAD_INPUT naming the text. */
BASE_MUST_CHECK base_status rpc_address_parse(const char *text, rpc_address *address_out);

#endif /* PROTO_RPC_ADDRESS_H */
