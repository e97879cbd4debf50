#include "tests/support/rpc_echo.h"

#include "tests/support/failing_alloc.h"

#include "base/bytes.h"
#include "proto/health.h"

/* The messages are so small that the tests say their bytes: field 1 is a number from 0 to 3. */
#define SERVING         "\x08\x01"
#define NOT_SERVING     "\x08\x02"
#define SERVICE_UNKNOWN "\x08\x03"
/* Field 1 is the name of a service. */
#define NAME_ECHO  "\x0a\x09test.Echo"
#define NAME_OTHER "\x0a\x0atest.Other"

#define CHECK_PATH "/grpc.health.v1.Health/Check"
#define WATCH_PATH "/grpc.health.v1.Health/Watch"

static int start_library(void **state)
{
    (void)state;
    rpc_init();
    return 0;
}

static int end_library(void **state)
{
    (void)state;
    rpc_shutdown();
    return 0;
}

/* Checks one name; want is the reply, or NULL where code is an error. */
static void check(rpc_channel *channel, const char *request, rpc_code want_code, const char *want)
{
    base_bytes reply;
    rpc_code code = RPC_UNKNOWN;
    char text[RPC_MAX_STATUS_BYTES + 1];
    base_bytes_init(&reply, 100, &base_heap);
    CHECK_STATUS(
        rpc_client_unary(channel, CHECK_PATH, base_view_of(request), 5000, &reply, &code, text),
        BASE_OK);
    assert_int_equal(code, want_code);
    if (want != NULL) {
        assert_true(base_view_equal(base_bytes_view(&reply), base_view_of(want)));
    }
    base_bytes_reset(&reply);
}

static void check_tells_what_was_set(void **state)
{
    (void)state;
    echo_seen seen = {0};
    rpc_server *server = echo_server(&seen, "127.0.0.1:0");
    rpc_channel *channel = peer_dial(server);
    check(channel, "", RPC_OK, NOT_SERVING);
    check(channel, NAME_ECHO, RPC_OK, NOT_SERVING);
    rpc_server_set_serving(server, true);
    check(channel, "", RPC_OK, SERVING);
    check(channel, NAME_ECHO, RPC_OK, SERVING);
    check(channel, NAME_OTHER, RPC_NOT_FOUND, NULL);
    check(channel, "\x0a\x7f", RPC_INVALID_ARGUMENT, NULL); /* a name longer than the message */
    rpc_server_set_serving(server, false);
    check(channel, "", RPC_OK, NOT_SERVING);
    rpc_channel_destroy(channel);
    rpc_server_destroy(server, 1000);
    echo_end(&seen);
}

static void watch_follows_until_the_server_goes(void **state)
{
    (void)state;
    echo_seen seen = {0};
    rpc_server *server = echo_server(&seen, "127.0.0.1:0");
    rpc_channel *channel = peer_dial(server);
    rpc_peer watch = {.n_messages = 0};
    rpc_peer unknown = {.n_messages = 0};
    rpc_peer malformed = {.n_messages = 0};

    peer_ask(&watch, channel, WATCH_PATH, INT64_MAX, NAME_ECHO);
    peer_ask(&unknown, channel, WATCH_PATH, INT64_MAX, NAME_OTHER);
    peer_ask(&malformed, channel, WATCH_PATH, INT64_MAX, "\x0a\x7f");
    peer_end(&malformed, RPC_INVALID_ARGUMENT);
    PEER_WAIT_FOR(peer_n_messages(&watch) == 1);
    assert_string_equal(watch.last, NOT_SERVING);
    PEER_WAIT_FOR(peer_n_messages(&unknown) == 1);
    assert_string_equal(unknown.last, SERVICE_UNKNOWN);

    rpc_server_set_serving(server, true);
    rpc_server_set_serving(server, true); /* no news */
    PEER_WAIT_FOR(peer_n_messages(&watch) == 2);
    assert_string_equal(watch.last, SERVING);
    assert_false(peer_is_over(&unknown));

    const int64_t begin_us = base_now_us();
    rpc_server_destroy(server, 10000);
    assert_true(base_now_us() - begin_us < 5000000); /* open watches do not use up the grace */
    peer_end(&watch, RPC_UNAVAILABLE);
    assert_int_equal(watch.n_messages, 3);
    assert_string_equal(watch.last, NOT_SERVING);
    peer_end(&unknown, RPC_UNAVAILABLE);
    assert_int_equal(unknown.n_messages, 1);
    rpc_channel_destroy(channel);
    echo_end(&seen);
}

static void watchers_may_come_and_go_while_health_changes(void **state)
{
    (void)state;
    enum { N = 60 };
    echo_seen seen = {0};
    rpc_server *server = echo_server(&seen, "127.0.0.1:0");
    rpc_channel *channel = peer_dial(server);
    rpc_peer *peers = base_heap.get(base_heap.ctx, N * sizeof *peers);
    assert_non_null(peers);
    for (int i = 0; i < N; i++) {
        peer_ask(&peers[i], channel, WATCH_PATH, INT64_MAX, "");
        rpc_server_set_serving(server, i % 2 == 0);
        if (i % 3 == 0) {
            rpc_client_cancel(peers[i].call);
        }
    }
    rpc_server_set_serving(server, true);
    for (int i = 0; i < N; i++) {
        if (i % 3 == 0) {
            peer_end(&peers[i], RPC_CANCELLED);
        } else {
            PEER_WAIT_FOR(peer_n_messages(&peers[i]) > 0);
        }
    }
    rpc_server_destroy(server, 10000);
    for (int i = 0; i < N; i++) {
        if (i % 3 != 0) {
            peer_end(&peers[i], RPC_UNAVAILABLE);
            assert_string_equal(peers[i].last, NOT_SERVING);
        }
    }
    base_heap.put(base_heap.ctx, peers);
    rpc_channel_destroy(channel);
    echo_end(&seen);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    const rpc_method methods[] = {{.path = "/a.B/C"}, {.path = "/a.B/D"}, {.path = "/a.E/F"}};
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        rpc_health *health = NULL;
        const base_status st = rpc_health_create(methods, 3, &mem, &health);
        if (st == BASE_OK) {
            assert_int_equal(k, 4); /* health, table, two services */
            rpc_health_destroy(health);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(health);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_tells_what_was_set),
        cmocka_unit_test(watch_follows_until_the_server_goes),
        cmocka_unit_test(watchers_may_come_and_go_while_health_changes),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, start_library, end_library);
}
