#include "proto/rpc.h"

const char *rpc_code_name(rpc_code code)
{
    static const char *const names[] = {
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    };
    const int i = (int)code;
    return i >= 0 && i < (int)(sizeof names / sizeof names[0]) ? names[i] : "?";
}

rpc_code rpc_code_of(base_status st)
{
    switch (st) {
    case BASE_OK: return RPC_OK;
    case BASE_BAD_INPUT: return RPC_INVALID_ARGUMENT;
    case BASE_OUT_OF_RANGE: return RPC_OUT_OF_RANGE;
    case BASE_NOT_FOUND: return RPC_NOT_FOUND;
    case BASE_EXHAUSTED: return RPC_RESOURCE_EXHAUSTED;
    case BASE_CANCELLED: return RPC_CANCELLED;
    case BASE_TIMEOUT: return RPC_DEADLINE_EXCEEDED;
    case BASE_UNAVAILABLE: return RPC_UNAVAILABLE;
    case BASE_NO_MEMORY: return RPC_RESOURCE_EXHAUSTED;
    case BASE_PEER_LOST: return RPC_UNAVAILABLE; /* the group restarts; a retry may succeed */
    case BASE_DEVICE_LOST: return RPC_UNAVAILABLE;
    case BASE_BAD_FILE: return RPC_INTERNAL;
    case BASE_IO: return RPC_INTERNAL;
    }
    return RPC_UNKNOWN;
}
