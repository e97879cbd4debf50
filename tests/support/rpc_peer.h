/* tests/support/rpc_peer.h - a client's call that writes down what happens to it.
 *
 * Every wait ends after PEER_WAIT_MS and then fails the test. */
#ifndef TESTS_SUPPORT_RPC_PEER_H
#define TESTS_SUPPORT_RPC_PEER_H

#include "tests/support/test.h"

#include "base/clock.h"
#include "proto/rpc.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define PEER_WAIT_MS 20000

typedef struct rpc_peer {
    pthread_mutex_t mutex; /* guards the rest */
    rpc_call *call;
    int n_messages;
    int n_disordered; /* messages that are not their own number, counted from 0 */
    int n_status;
    int n_after_status;  /* handlers that ran after on_status */
    int64_t slowness_us; /* slept in each on_message */
    char last[64];       /* start of the last message */
    size_t last_n_bytes;
    rpc_code code;
    char text[RPC_MAX_STATUS_BYTES + 64];
} rpc_peer;

static inline void peer_on_message(void *ctx, rpc_call *call, base_view message)
{
    rpc_peer *peer = ctx;
    char number[16];
    (void)call;
    (void)pthread_mutex_lock(&peer->mutex);
    (void)snprintf(number, sizeof number, "%d", peer->n_messages);
    peer->n_disordered += !base_view_equal(message, base_view_of(number));
    peer->n_messages++;
    peer->n_after_status += peer->n_status > 0;
    memset(peer->last, 0, sizeof peer->last);
    memcpy(peer->last, message.data,
           message.n_bytes < sizeof peer->last - 1 ? message.n_bytes : sizeof peer->last - 1);
    peer->last_n_bytes = message.n_bytes;
    const int64_t slowness_us = peer->slowness_us;
    (void)pthread_mutex_unlock(&peer->mutex);
    if (slowness_us > 0) {
        base_sleep_us(slowness_us);
    }
}

static inline void peer_on_status(void *ctx, rpc_call *call, rpc_code code, const char *text)
{
    rpc_peer *peer = ctx;
    (void)call;
    (void)pthread_mutex_lock(&peer->mutex);
    peer->n_status++;
    peer->code = code;
    (void)snprintf(peer->text, sizeof peer->text, "%s", text);
    (void)pthread_mutex_unlock(&peer->mutex);
}

/* Starts a call; the zeroed peer must live until peer_end. */
static inline void peer_start(rpc_peer *peer, rpc_channel *channel, const char *path,
                              int64_t timeout_ms)
{
    const rpc_client_handlers handlers = {
        .ctx = peer, .on_message = peer_on_message, .on_status = peer_on_status};
    (void)pthread_mutex_init(&peer->mutex, NULL);
    CHECK_STATUS(rpc_client_start(channel, path, timeout_ms, 16, &handlers, &peer->call), BASE_OK);
}

/* Sends; the call may have ended already, or have a full queue. */
static inline void peer_try_send(rpc_call *call, base_view message)
{
    const base_status st = rpc_call_send(call, message);
    if (st != BASE_OK && st != BASE_CANCELLED && st != BASE_EXHAUSTED) {
        fail_msg("send gave %s: %s", base_status_name(st), base_last_error());
    }
}

/* Starts a call with one message and no more. */
static inline void peer_ask(rpc_peer *peer, rpc_channel *channel, const char *path,
                            int64_t timeout_ms, const char *message)
{
    peer_start(peer, channel, path, timeout_ms);
    peer_try_send(peer->call, base_view_of(message)); /* a server that is not there is quick */
    rpc_client_half_close(peer->call);
}

static inline int peer_n_messages(rpc_peer *peer)
{
    (void)pthread_mutex_lock(&peer->mutex);
    const int n_messages = peer->n_messages;
    (void)pthread_mutex_unlock(&peer->mutex);
    return n_messages;
}

static inline bool peer_is_over(rpc_peer *peer)
{
    (void)pthread_mutex_lock(&peer->mutex);
    const bool over = peer->n_status > 0;
    (void)pthread_mutex_unlock(&peer->mutex);
    return over;
}

#define PEER_WAIT_FOR(condition)                                                   \
    do {                                                                           \
        const int64_t until_us_ = base_now_us() + (int64_t)PEER_WAIT_MS * 1000;    \
        while (!(condition)) {                                                     \
            if (base_now_us() > until_us_) {                                       \
                fail_msg("waited %d ms in vain for %s", PEER_WAIT_MS, #condition); \
            }                                                                      \
            base_sleep_us(500);                                                    \
        }                                                                          \
    } while (0)

/* Waits for the status, which must be code. */
static inline void peer_end(rpc_peer *peer, rpc_code code)
{
    PEER_WAIT_FOR(peer_is_over(peer));
    if (peer->code != code) {
        fail_msg("the call ended with %s '%s', want %s", rpc_code_name(peer->code), peer->text,
                 rpc_code_name(code));
    }
    assert_int_equal(peer->n_status, 1);
    assert_int_equal(peer->n_after_status, 0);
    rpc_call_unref(peer->call);
}

/* A channel to a server on the loopback. */
static inline rpc_channel *peer_dial(const rpc_server *server)
{
    char target[32];
    rpc_channel *channel = NULL;
    (void)snprintf(target, sizeof target, "127.0.0.1:%d", (int)rpc_server_port(server));
    CHECK_STATUS(rpc_channel_create(target, &channel), BASE_OK);
    return channel;
}

#endif /* TESTS_SUPPORT_RPC_PEER_H */
