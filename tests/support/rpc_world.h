/* tests/support/rpc_world.h - one server that echoes (rpc_echo.h) and one channel to it, for all tests of a file. */
#ifndef TESTS_SUPPORT_RPC_WORLD_H
#define TESTS_SUPPORT_RPC_WORLD_H

#include "tests/support/rpc_echo.h"

static echo_seen seen;
static rpc_server *server;
static rpc_channel *channel;

static inline int start_all(void **state)
{
    (void)state;
    rpc_init();
    server = echo_server(&seen, "127.0.0.1:0");
    channel = peer_dial(server);
    return 0;
}

static inline int end_all(void **state)
{
    (void)state;
    rpc_channel_destroy(channel);
    rpc_server_destroy(server, 1000);
    echo_end(&seen);
    rpc_shutdown();
    return 0;
}

#endif /* TESTS_SUPPORT_RPC_WORLD_H */
