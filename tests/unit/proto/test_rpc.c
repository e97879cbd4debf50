#include "tests/support/rpc_world.h"

#include "base/bytes.h"

static void our_codes_become_grpc_codes(void **state)
{
    (void)state;
    assert_int_equal(rpc_code_of(BASE_OK), RPC_OK);
    assert_int_equal(rpc_code_of(BASE_BAD_INPUT), RPC_INVALID_ARGUMENT);
    assert_int_equal(rpc_code_of(BASE_OUT_OF_RANGE), RPC_OUT_OF_RANGE);
    assert_int_equal(rpc_code_of(BASE_EXHAUSTED), RPC_RESOURCE_EXHAUSTED);
    assert_int_equal(rpc_code_of(BASE_PEER_LOST), RPC_UNAVAILABLE);
    assert_string_equal(rpc_code_name(RPC_UNAUTHENTICATED), "UNAUTHENTICATED");
    assert_string_equal(rpc_code_name((rpc_code)17), "?");
    assert_string_equal(rpc_code_name((rpc_code)-1), "?");
}

static void a_unary_call_brings_the_reply_and_ok(void **state)
{
    (void)state;
    base_bytes reply;
    rpc_code code = RPC_UNKNOWN;
    char text[RPC_MAX_STATUS_BYTES + 1] = "before";
    const base_view request = {"a\0b", 3};

    base_bytes_init(&reply, 100, &base_heap);
    for (int i = 0; i < 100; i++) {
        reply.n_bytes = 0;
        CHECK_STATUS(
            rpc_client_unary(channel, "/test.Echo/Unary", request, 5000, &reply, &code, text),
            BASE_OK);
        assert_int_equal(code, RPC_OK);
        assert_string_equal(text, "");
        assert_true(base_view_equal(base_bytes_view(&reply), request));
    }
    base_bytes_reset(&reply);
}

static void an_empty_message_is_a_message(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    peer_ask(&peer, channel, "/test.Echo/Unary", 5000, "");
    peer_end(&peer, RPC_OK);
    assert_int_equal(peer.n_messages, 1);
    assert_int_equal(peer.last_n_bytes, 0);
}

static void large_messages_pass_and_larger_ones_are_refused(void **state)
{
    (void)state;
    base_bytes reply;
    rpc_code code = RPC_UNKNOWN;
    char text[RPC_MAX_STATUS_BYTES + 1];
    char *big = base_heap.get(base_heap.ctx, RPC_MAX_MESSAGE_BYTES + 1);
    assert_non_null(big);
    big[RPC_MAX_MESSAGE_BYTES - 1] = 'z';

    base_bytes_init(&reply, RPC_MAX_MESSAGE_BYTES, &base_heap);
    base_view request = {big, RPC_MAX_MESSAGE_BYTES};
    CHECK_STATUS(rpc_client_unary(channel, "/test.Echo/Unary", request, 20000, &reply, &code, text),
                 BASE_OK);
    assert_int_equal(code, RPC_OK);
    assert_true(base_view_equal(base_bytes_view(&reply), request));
    base_bytes_reset(&reply);

    request.n_bytes++;
    const int n_before = atomic_load(&seen.n_messages);
    CHECK_STATUS(rpc_client_unary(channel, "/test.Echo/Unary", request, 20000, &reply, &code, text),
                 BASE_OK);
    assert_int_equal(code, RPC_RESOURCE_EXHAUSTED);
    assert_int_equal(reply.n_bytes, 0);
    assert_int_equal(atomic_load(&seen.n_messages), n_before);

    /* Also when more may follow: it must not look like the end of the client's messages. */
    rpc_peer peer = {.n_messages = 0};
    peer_start(&peer, channel, "/test.Echo/Bidi", 20000);
    CHECK_STATUS(rpc_call_send(peer.call, request), BASE_OK);
    peer_end(&peer, RPC_RESOURCE_EXHAUSTED);
    base_heap.put(base_heap.ctx, big);
}

static void a_stream_to_a_slow_reader_is_in_order_and_bounded(void **state)
{
    (void)state;
    rpc_peer peer = {.slowness_us = 20};
    const int n_before = atomic_load(&seen.n_exhausted);
    peer_ask(&peer, channel, "/test.Echo/Count", 60000, "10000");
    peer_end(&peer, RPC_OK);
    assert_int_equal(peer.n_messages, 10000);
    assert_int_equal(peer.n_disordered, 0);
    assert_true(atomic_load(&seen.n_exhausted) > n_before);
}

static void both_sides_talk_in_turn(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    char number[16];
    peer_start(&peer, channel, "/test.Echo/Bidi", 20000);
    for (int i = 0; i < 200; i++) {
        (void)snprintf(number, sizeof number, "%d", i);
        CHECK_STATUS(rpc_call_send(peer.call, base_view_of(number)), BASE_OK);
        PEER_WAIT_FOR(peer_n_messages(&peer) == i + 1);
    }
    rpc_client_half_close(peer.call);
    CHECK_STATUS(rpc_call_send(peer.call, base_view_of("late")), BASE_CANCELLED);
    peer_end(&peer, RPC_OK);
    assert_int_equal(peer.n_messages, 200);
    assert_int_equal(peer.n_disordered, 0);
}

static void a_full_queue_is_exhausted_until_it_drains(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    const size_t n_bytes = 4 << 20; /* beyond what the transport takes in at once */
    char *big = base_heap.get(base_heap.ctx, n_bytes);
    base_status st = BASE_OK;
    int n_sent = 0;
    assert_non_null(big);
    peer_start(&peer, channel, "/test.Echo/Bidi", 20000);
    while (n_sent < 100 && (st = rpc_call_send(peer.call, (base_view){big, n_bytes})) == BASE_OK) {
        n_sent++;
    }
    assert_int_equal(st, BASE_EXHAUSTED);
    assert_true(n_sent >= 16); /* max_queued of peers */
    PEER_WAIT_FOR(rpc_call_n_queued(peer.call) == 0);
    CHECK_STATUS(rpc_call_send(peer.call, (base_view){big, 1}), BASE_OK);
    rpc_client_half_close(peer.call);
    peer_end(&peer, RPC_OK);
    assert_int_equal(peer.n_messages, n_sent + 1);
    base_heap.put(base_heap.ctx, big);
}

static void a_cancel_reaches_the_server(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    peer_ask(&peer, channel, "/test.Echo/Hold", INT64_MAX, "");
    PEER_WAIT_FOR(peer_n_messages(&peer) == 1);
    assert_true(atomic_load(&seen.time_left_us) == INT64_MAX);
    const int n_closed = atomic_load(&seen.n_closed);
    rpc_client_cancel(peer.call);
    peer_end(&peer, RPC_CANCELLED);
    PEER_WAIT_FOR(atomic_load(&seen.n_closed) == n_closed + 1);

    /* Who still holds the call may go on using it. */
    rpc_call *held = echo_take_held(&seen);
    CHECK_STATUS(rpc_call_send(held, base_view_of("late")), BASE_CANCELLED);
    rpc_call_finish(held, RPC_OK, NULL);
    assert_int_equal(rpc_call_n_queued(held), 0);
    rpc_call_unref(held);
}

static void a_deadline_ends_both_sides(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    const int n_closed = atomic_load(&seen.n_closed);
    peer_ask(&peer, channel, "/test.Echo/Hold", 300, "");
    peer_end(&peer, RPC_DEADLINE_EXCEEDED);
    PEER_WAIT_FOR(atomic_load(&seen.n_closed) == n_closed + 1);
    assert_in_range(atomic_load(&seen.time_left_us), 1, 310000); /* the header rounds up */
    rpc_call *held = echo_take_held(&seen);
    assert_in_range(rpc_call_time_left_us(held), 0,
                    10000); /* so the client may be first to end it */
    PEER_WAIT_FOR(rpc_call_time_left_us(held) == 0);
    rpc_call_unref(held);

    base_bytes reply;
    rpc_code code = RPC_OK;
    char text[RPC_MAX_STATUS_BYTES + 1];
    base_bytes_init(&reply, 100, &base_heap);
    CHECK_STATUS(
        rpc_client_unary(channel, "/test.Echo/Hold", base_view_of("x"), 100, &reply, &code, text),
        BASE_OK);
    assert_int_equal(code, RPC_DEADLINE_EXCEEDED);
    assert_int_equal(reply.n_bytes, 0);
    base_bytes_reset(&reply);
}

static void unknown_methods_are_unimplemented(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    peer_ask(&peer, channel, "/test.Echo/Nothing", 5000, "x");
    peer_end(&peer, RPC_UNIMPLEMENTED);
    assert_non_null(strstr(peer.text, "/test.Echo/Nothing"));
}

static void a_missing_request_is_told(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    peer_start(&peer, channel, "/test.Echo/Unary", 5000);
    rpc_client_half_close(peer.call);
    peer_end(&peer, RPC_INTERNAL);
}

static void the_first_finish_wins(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    peer_ask(&peer, channel, "/test.Echo/Finish", 5000, "100% caf\xc3\xa9");
    peer_end(&peer, RPC_INVALID_ARGUMENT);
    assert_string_equal(peer.text, "100% caf\xc3\xa9");
}

static void a_long_status_text_is_cut_between_characters(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    char text[5001];
    for (size_t i = 0; i < sizeof text - 1; i++) {
        text[i] = i % 2 == 1 ? '\xc3' : '\xa9';
    }
    text[0] = '>'; /* so that the limit falls within a character */
    text[sizeof text - 1] = '\0';
    peer_ask(&peer, channel, "/test.Echo/Finish", 5000, text);
    peer_end(&peer, RPC_INVALID_ARGUMENT);
    assert_int_equal(strlen(peer.text), RPC_MAX_STATUS_BYTES - 1);
    assert_memory_equal(peer.text, text, RPC_MAX_STATUS_BYTES - 1);
}

static void many_streams_run_at_once(void **state)
{
    (void)state;
    enum { N = 256 };
    rpc_peer *peers = base_heap.get(base_heap.ctx, N * sizeof *peers);
    assert_non_null(peers);
    for (int i = 0; i < N; i++) {
        peer_start(&peers[i], channel, "/test.Echo/Bidi", 60000);
        CHECK_STATUS(rpc_call_send(peers[i].call, base_view_of("0")), BASE_OK);
    }
    for (int i = 0; i < N; i++) {
        PEER_WAIT_FOR(peer_n_messages(&peers[i]) == 1); /* all are open now */
    }
    for (int i = 0; i < N; i++) {
        for (int k = 1; k < 10; k++) {
            const char digit[2] = {(char)('0' + k), '\0'};
            CHECK_STATUS(rpc_call_send(peers[i].call, base_view_of(digit)), BASE_OK);
        }
        rpc_client_half_close(peers[i].call);
    }
    for (int i = 0; i < N; i++) {
        peer_end(&peers[i], RPC_OK);
        assert_int_equal(peers[i].n_messages, 10);
        assert_int_equal(peers[i].n_disordered, 0);
    }
    base_heap.put(base_heap.ctx, peers);
}

/* Cancels fall into every moment of a call; echo_end finds handlers that overlapped. */
static void cancels_at_any_moment_close_each_call_once(void **state)
{
    (void)state;
    enum { N = 300 };
    rpc_peer *peers = base_heap.get(base_heap.ctx, N * sizeof *peers);
    assert_non_null(peers);
    for (int i = 0; i < N; i++) {
        peer_start(&peers[i], channel, i % 2 == 0 ? "/test.Echo/Bidi" : "/test.Echo/Count", 60000);
        for (int k = 0; k < 10; k++) {
            peer_try_send(peers[i].call, base_view_of("9999999"));
        }
        base_sleep_us(i % 16 * 30);
        rpc_client_cancel(peers[i].call);
    }
    for (int i = 0; i < N; i++) {
        peer_end(&peers[i], RPC_CANCELLED);
    }
    base_heap.put(base_heap.ctx, peers);
    rpc_peer last = {.n_messages = 0};
    peer_ask(&last, channel, "/test.Echo/Unary", 5000, "0");
    peer_end(&last, RPC_OK);
}

static void a_close_waits_for_the_handler_that_runs(void **state)
{
    (void)state;
    rpc_peer peer = {.n_messages = 0};
    const int n_messages = atomic_load(&seen.n_messages);
    const int n_closed = atomic_load(&seen.n_closed);
    peer_start(&peer, channel, "/test.Echo/Bidi", INT64_MAX);
    CHECK_STATUS(rpc_call_send(peer.call, base_view_of("slow")), BASE_OK);
    PEER_WAIT_FOR(atomic_load(&seen.n_messages) == n_messages + 1);
    rpc_client_cancel(peer.call);
    peer_end(&peer, RPC_CANCELLED);
    PEER_WAIT_FOR(atomic_load(&seen.n_closed) == n_closed + 1);
    assert_int_equal(atomic_load(&seen.n_overlaps), 0);
}

static void bad_starts_name_the_field(void **state)
{
    (void)state;
    const rpc_client_handlers good = {.on_status = peer_on_status};
    const rpc_client_handlers bad = {.on_message = peer_on_message};
    rpc_call *call = NULL;
    CHECK_STATUS(rpc_client_start(channel, "no-slash", 1, 1, &good, &call), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("no-slash");
    CHECK_STATUS(rpc_client_start(channel, "/a/b", 0, 1, &good, &call), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("timeout_ms 0");
    CHECK_STATUS(rpc_client_start(channel, "/a/b", 1, 0, &good, &call), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("max_queued 0");
    CHECK_STATUS(rpc_client_start(channel, "/a/b", 1, 1, &bad, &call), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("on_status");
    assert_null(call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(our_codes_become_grpc_codes),
        cmocka_unit_test(a_unary_call_brings_the_reply_and_ok),
        cmocka_unit_test(an_empty_message_is_a_message),
        cmocka_unit_test(large_messages_pass_and_larger_ones_are_refused),
        cmocka_unit_test(a_stream_to_a_slow_reader_is_in_order_and_bounded),
        cmocka_unit_test(both_sides_talk_in_turn),
        cmocka_unit_test(a_full_queue_is_exhausted_until_it_drains),
        cmocka_unit_test(a_cancel_reaches_the_server),
        cmocka_unit_test(a_deadline_ends_both_sides),
        cmocka_unit_test(unknown_methods_are_unimplemented),
        cmocka_unit_test(a_missing_request_is_told),
        cmocka_unit_test(the_first_finish_wins),
        cmocka_unit_test(a_long_status_text_is_cut_between_characters),
        cmocka_unit_test(many_streams_run_at_once),
        cmocka_unit_test(cancels_at_any_moment_close_each_call_once),
        cmocka_unit_test(a_close_waits_for_the_handler_that_runs),
        cmocka_unit_test(bad_starts_name_the_field),
    };
    return cmocka_run_group_tests(tests, start_all, end_all);
}
