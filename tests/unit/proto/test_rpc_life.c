/* Servers and channels that come and go. */
#include "tests/support/rpc_echo.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* c-ares 1.18, core's resolver, loses a copy of the name "localhost". */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libcares.so";
}

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

typedef struct ending {
    rpc_server *server;
    int64_t grace_ms;
    int64_t took_us;
    pthread_t thread;
} ending;

static void *end_server(void *arg)
{
    ending *e = arg;
    const int64_t begin_us = base_now_us();
    rpc_server_destroy(e->server, e->grace_ms);
    e->took_us = base_now_us() - begin_us;
    return NULL;
}

static void begin_end(ending *e)
{
    assert_int_equal(pthread_create(&e->thread, NULL, end_server, e), 0);
}

static void check_answers(const char *target)
{
    rpc_channel *channel = NULL;
    rpc_peer peer = {.n_messages = 0};
    CHECK_STATUS(rpc_channel_create(target, &channel), BASE_OK);
    peer_ask(&peer, channel, "/test.Echo/Unary", 5000, "0");
    peer_end(&peer, RPC_OK);
    assert_int_equal(peer.n_disordered, 0);
    rpc_channel_destroy(channel);
}

/* ---- tests ---- */

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    echo_seen seen = {0};
    rpc_server *second = NULL;
    char listen[32];
    rpc_server *first = echo_server(&seen, "127.0.0.1:0");
    const rpc_server_options options = {.listen = listen, .n_pollers = 1, .max_queued = 1};
    (void)snprintf(listen, sizeof listen, "127.0.0.1:%d", (int)rpc_server_port(first));
    CHECK_STATUS(echo_server_try(&seen, &options, &second), BASE_IO);
    CHECK_ERROR_NAMES(listen);
    CHECK_ERROR_NAMES("Address already in use");
    assert_null(second);
    check_answers(listen);
    rpc_server_destroy(first, 1000);
    echo_end(&seen);
}

static void bad_options_are_named(void **state)
{
    (void)state;
    static const struct {
        rpc_server_options options;
        const char *names;
    } rows[] = {
        {{.listen = "127.0.0.1:0", .n_pollers = 0, .max_queued = 1}, "n_pollers 0"},
        {{.listen = "127.0.0.1:0", .n_pollers = 17, .max_queued = 1}, "n_pollers 17"},
        {{.listen = "127.0.0.1:0", .n_pollers = 1, .max_queued = 0}, "max_queued 0"},
        {{.listen = NULL, .n_pollers = 1, .max_queued = 1}, "HOST:PORT"},
        {{.listen = "here", .n_pollers = 1, .max_queued = 1}, "'here'"},
        {{.listen = "here:", .n_pollers = 1, .max_queued = 1}, "'here:'"},
        {{.listen = "here:65536", .n_pollers = 1, .max_queued = 1}, "'here:65536'"},
        {{.listen = ":1", .n_pollers = 1, .max_queued = 1}, "':1'"},
        {{.listen = "::1:1", .n_pollers = 1, .max_queued = 1}, "brackets"},
        {{.listen = "unix:", .n_pollers = 1, .max_queued = 1}, "'unix:'"},
    };
    echo_seen seen = {0};
    rpc_channel *channel = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rpc_server *server = NULL;
        CHECK_STATUS(echo_server_try(&seen, &rows[i].options, &server), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(rows[i].names);
        assert_null(server);
    }
    CHECK_STATUS(rpc_channel_create("127.0.0.1:0", &channel), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("port 0");
    CHECK_STATUS(rpc_channel_create(NULL, &channel), BASE_BAD_INPUT);

    const rpc_method bad = {.path = "/no-method", .on_message = echo_unary};
    const rpc_server_options good = {.listen = "127.0.0.1:0", .n_pollers = 1, .max_queued = 1};
    rpc_server *server = NULL;
    CHECK_STATUS(rpc_server_create(&good, &bad, 1, &server), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("/no-method");
}

static void names_and_ipv6_numbers_can_be_listened_on(void **state)
{
    (void)state;
    echo_seen seen = {0};
    char target[64];
    rpc_server *server = echo_server(&seen, "localhost:0");
    (void)snprintf(target, sizeof target, "localhost:%d", (int)rpc_server_port(server));
    check_answers(target);
    (void)snprintf(target, sizeof target, "127.0.0.1:%d", (int)rpc_server_port(server));
    check_answers(target);
    rpc_server_destroy(server, 1000);

    const struct sockaddr_in6 loopback = {.sin6_family = AF_INET6,
                                          .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    const int fd = socket(AF_INET6, SOCK_STREAM, 0);
    const bool has_ipv6 =
        fd >= 0 && bind(fd, (const struct sockaddr *)&loopback, sizeof loopback) == 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    if (has_ipv6) {
        server = echo_server(&seen, "[::]:0"); /* serves IPv4 as well */
        (void)snprintf(target, sizeof target, "[::1]:%d", (int)rpc_server_port(server));
        check_answers(target);
        (void)snprintf(target, sizeof target, "127.0.0.1:%d", (int)rpc_server_port(server));
        check_answers(target);
        rpc_server_destroy(server, 1000);
    }
    echo_end(&seen);
}

static void a_unix_socket_replaces_only_a_dead_one(void **state)
{
    (void)state;
    echo_seen seen = {0};
    char directory[] = "/tmp/ropewalk_rpc_XXXXXX";
    char listen[64];
    rpc_server *second = NULL;
    assert_non_null(mkdtemp(directory));
    (void)snprintf(listen, sizeof listen, "unix:%s/s", directory);
    const rpc_server_options options = {.listen = listen, .n_pollers = 1, .max_queued = 1};

    rpc_server *server = echo_server(&seen, listen);
    assert_int_equal(rpc_server_port(server), 0);
    check_answers(listen);
    CHECK_STATUS(echo_server_try(&seen, &options, &second), BASE_IO);
    CHECK_ERROR_NAMES(listen);
    check_answers(listen);
    rpc_server_destroy(server, 1000);
    assert_int_equal(access(listen + 5, F_OK), -1);

    /* What a killed server leaves behind: a bound file without a listener. */
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    (void)snprintf(name.sun_path, sizeof name.sun_path, "%s", listen + 5);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&name, sizeof name), 0);
    (void)close(fd);
    server = echo_server(&seen, listen);
    check_answers(listen);
    rpc_server_destroy(server, 1000);
    assert_int_equal(rmdir(directory), 0);
    echo_end(&seen);
}

static void a_drain_lets_calls_end_and_refuses_new_ones(void **state)
{
    (void)state;
    echo_seen seen = {0};
    ending e = {.server = echo_server(&seen, "127.0.0.1:0"), .grace_ms = 15000};
    rpc_channel *channel = peer_dial(e.server);
    rpc_peer running = {.n_messages = 0};
    rpc_peer refused = {.n_messages = 0};
    char target[32];

    (void)snprintf(target, sizeof target, "127.0.0.1:%d", (int)rpc_server_port(e.server));
    peer_ask(&running, channel, "/test.Echo/Hold", INT64_MAX, "");
    PEER_WAIT_FOR(peer_n_messages(&running) == 1);
    begin_end(&e);
    base_sleep_us(200000); /* the goodbye is under way */
    rpc_channel *other = NULL;
    CHECK_STATUS(rpc_channel_create(target, &other), BASE_OK);
    peer_ask(&refused, other, "/test.Echo/Unary", 5000, "0");
    peer_end(&refused, RPC_UNAVAILABLE);
    rpc_channel_destroy(other);
    assert_false(peer_is_over(&running));

    rpc_call *held = echo_take_held(&seen);
    CHECK_STATUS(rpc_call_send(held, base_view_of("bye")), BASE_OK);
    rpc_call_finish(held, RPC_OK, NULL);
    rpc_call_unref(held);
    peer_end(&running, RPC_OK);
    assert_string_equal(running.last, "bye");
    assert_int_equal(pthread_join(e.thread, NULL), 0);
    assert_true(e.took_us < 10000000);
    rpc_channel_destroy(channel);
    echo_end(&seen);
}

static void what_outlives_the_grace_is_cancelled(void **state)
{
    (void)state;
    echo_seen seen = {0};
    ending e = {.server = echo_server(&seen, "127.0.0.1:0"), .grace_ms = 100};
    rpc_channel *channel = peer_dial(e.server);
    rpc_peer peer = {.n_messages = 0};
    peer_ask(&peer, channel, "/test.Echo/Hold", INT64_MAX, "");
    PEER_WAIT_FOR(peer_n_messages(&peer) == 1);
    begin_end(&e);
    peer_end(&peer, RPC_UNAVAILABLE);
    assert_int_equal(pthread_join(e.thread, NULL), 0);
    assert_in_range(e.took_us, 100000, 2100000);
    assert_int_equal(atomic_load(&seen.n_closed), 1);

    /* The server is gone, the call may still be held. */
    rpc_call *held = echo_take_held(&seen);
    CHECK_STATUS(rpc_call_send(held, base_view_of("late")), BASE_CANCELLED);
    rpc_call_unref(held);
    rpc_channel_destroy(channel);
    echo_end(&seen);
}

static void a_channel_finds_a_server_that_comes_back(void **state)
{
    (void)state;
    echo_seen seen = {0};
    char listen[32];
    rpc_server *server = echo_server(&seen, "127.0.0.1:0");
    rpc_channel *channel = peer_dial(server);
    (void)snprintf(listen, sizeof listen, "127.0.0.1:%d", (int)rpc_server_port(server));
    rpc_server_destroy(server, 0);

    for (int i = 0; i < 3; i++) {
        rpc_peer absent = {.n_messages = 0};
        peer_ask(&absent, channel, "/test.Echo/Unary", 5000, "0");
        peer_end(&absent, RPC_UNAVAILABLE);
    }
    server = echo_server(&seen, listen);
    const int64_t begin_us = base_now_us();
    for (bool answered = false; !answered;) {
        rpc_peer peer = {.n_messages = 0};
        peer_start(&peer, channel, "/test.Echo/Unary", 5000);
        peer_try_send(peer.call, base_view_of("0"));
        rpc_client_half_close(peer.call);
        PEER_WAIT_FOR(peer_is_over(&peer));
        answered = peer.code == RPC_OK;
        peer_end(&peer, answered ? RPC_OK : RPC_UNAVAILABLE);
        assert_true(base_now_us() - begin_us < 5000000);
        base_sleep_us(20000);
    }
    rpc_channel_destroy(channel);
    rpc_server_destroy(server, 1000);
    echo_end(&seen);
}

static void a_channel_that_ends_cancels_its_calls(void **state)
{
    (void)state;
    echo_seen seen = {0};
    rpc_server *server = echo_server(&seen, "127.0.0.1:0");
    rpc_channel *channel = peer_dial(server);
    rpc_peer peers[20] = {{.n_messages = 0}};
    for (size_t i = 0; i < 20; i++) {
        peer_ask(&peers[i], channel, "/test.Echo/Hold", INT64_MAX, "");
        PEER_WAIT_FOR(peer_n_messages(&peers[i]) == 1);
    }
    rpc_channel_destroy(channel);
    for (size_t i = 0; i < 20; i++) {
        assert_true(peer_is_over(&peers[i])); /* before the destroy returned */
        rpc_client_cancel(peers[i].call);     /* late, without effect */
        peer_end(&peers[i], RPC_CANCELLED);
    }
    PEER_WAIT_FOR(atomic_load(&seen.n_closed) == 20);
    rpc_server_destroy(server, 1000);
    echo_end(&seen);
}

/* Each round has ten connections that find no free descriptor in the server, as it shares ours. */
static void the_listener_survives_a_lack_of_descriptors(void **state)
{
    (void)state;
    enum { ROUNDS = 4, N = 10, ROOM = 24 };
    echo_seen seen = {0};
    struct rlimit before;
    char target[32];
    rpc_server *server = echo_server(&seen, "127.0.0.1:0");
    const struct sockaddr_in name = {.sin_family = AF_INET,
                                     .sin_addr = {htonl(INADDR_LOOPBACK)},
                                     .sin_port = htons((uint16_t)rpc_server_port(server))};

    (void)snprintf(target, sizeof target, "127.0.0.1:%d", (int)rpc_server_port(server));
    check_answers(target);
    const int lowest = dup(STDERR_FILENO);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit small = {.rlim_cur = (rlim_t)lowest + ROOM, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    for (int round = 0; round < ROUNDS; round++) {
        int sockets[N];
        int fillers[ROOM];
        int n_fillers = 0;
        for (int i = 0; i < N; i++) {
            sockets[i] = socket(AF_INET, SOCK_STREAM, 0);
            assert_true(sockets[i] >= 0);
        }
        while (n_fillers < ROOM && (fillers[n_fillers] = dup(lowest)) >= 0) {
            n_fillers++;
        }
        assert_true(n_fillers < ROOM); /* full */
        for (int i = 0; i < N; i++) {
            assert_int_equal(connect(sockets[i], (const struct sockaddr *)&name, sizeof name), 0);
        }
        base_sleep_us(60000);
        for (int i = 0; i < N; i++) {
            (void)close(sockets[i]);
        }
        while (n_fillers > 0) {
            (void)close(fillers[--n_fillers]);
        }
        base_sleep_us(100000); /* the server takes what waited and drops it */
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    (void)close(lowest);
    check_answers(target);
    rpc_server_destroy(server, 1000);
    echo_end(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_port_in_use_is_named),
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(names_and_ipv6_numbers_can_be_listened_on),
        cmocka_unit_test(a_unix_socket_replaces_only_a_dead_one),
        cmocka_unit_test(a_drain_lets_calls_end_and_refuses_new_ones),
        cmocka_unit_test(what_outlives_the_grace_is_cancelled),
        cmocka_unit_test(a_channel_finds_a_server_that_comes_back),
        cmocka_unit_test(a_channel_that_ends_cancels_its_calls),
        cmocka_unit_test(the_listener_survives_a_lack_of_descriptors),
    };
    return cmocka_run_group_tests(tests, start_library, end_library);
}
