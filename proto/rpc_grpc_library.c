#include "proto/rpc_grpc_call.h"

#include "base/clock.h"
#include "base/log.h"

#include <grpc/support/log.h>

#include <string.h>

#define SHUTDOWN_WAIT_US 2000000

static void log_line(gpr_log_func_args *args)
{
    const char *slash = strrchr(args->file, '/');
    base_log_level level = BASE_LOG_DEBUG;
    if (args->severity == GPR_LOG_SEVERITY_ERROR) {
        level = BASE_LOG_ERROR;
    } else if (args->severity == GPR_LOG_SEVERITY_INFO) {
        level = BASE_LOG_INFO;
    }
    base_log(level, "grpc %s:%d %s", slash == NULL ? args->file : slash + 1, args->line,
             args->message);
}

void rpc_init(void)
{
    gpr_set_log_function(log_line); /* which lines there are is up to GRPC_VERBOSITY: errors */
    grpc_init();
}

void rpc_shutdown(void)
{
    grpc_shutdown();
    /* Core ends in a thread of its own; a process that ends earlier looks like one that leaks. */
    const int64_t until_us = base_now_us() + SHUTDOWN_WAIT_US;
    while (grpc_is_initialized() != 0 && base_now_us() < until_us) {
        base_sleep_us(1000);
    }
}

void rpc_args_init(rpc_args *args)
{
    args->n_args = 0;
    rpc_args_add(args, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)RPC_MAX_MESSAGE_BYTES);
    rpc_args_add(args, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, -1);
    rpc_args_add(args, GRPC_ARG_MAX_METADATA_SIZE, 16384);
    rpc_args_add(args, GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM, GRPC_COMPRESS_NONE);
    /* A peer that vanished without a word is found, also between calls. */
    rpc_args_add(args, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    rpc_args_add(args, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
    rpc_args_add(args, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
}

void rpc_args_add(rpc_args *args, const char *key, int value)
{
    grpc_arg *arg = &args->list[args->n_args++];
    arg->type = GRPC_ARG_INTEGER;
    arg->key = (char *)key; /* core copies it */
    arg->value.integer = value;
}

grpc_channel_args rpc_args_channel(rpc_args *args)
{
    const grpc_channel_args all = {.num_args = args->n_args, .args = args->list};
    return all;
}
