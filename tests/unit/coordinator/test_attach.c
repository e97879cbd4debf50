/* Groups that come, are refused, fall silent and are lost; and the drain. */
#include "base/clock.h"
#include "tests/support/test.h"
#include "tests/unit/coordinator/fixture.h"

#define TOKENS(...) ((const int32_t[]){__VA_ARGS__})

static void nothing_is_served_before_a_group_attaches(void **state)
{
    static fixture f;
    static fake_group g;
    static client cl;
    (void)state;
    fixture_start(&f, 8, 500);
    assert_false(fixture_is_serving(&f));
    const inference_generate_request request = client_request("a");
    client_start(&cl, f.clients, &request, 5000);
    client_expect_end(&cl, RPC_UNAVAILABLE, "no worker group is attached");
    client_free(&cl);

    const group_hello hello = fake_hello(&f, 4);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    assert_true(fixture_is_serving(&f));
    fake_detach(&g);
    const int64_t until_us = base_now_us() + 5000000;
    while (fixture_is_serving(&f) && base_now_us() < until_us) {
        base_sleep_us(5000);
    }
    assert_false(fixture_is_serving(&f));
    fixture_stop(&f);
}

static void refuse(const fixture *f, const group_hello *hello, const char *text)
{
    static fake_group g;
    fake_attach(&g, f, hello);
    fake_expect_end(&g, RPC_FAILED_PRECONDITION, text);
    assert_int_equal(g.n_downs, 0); /* no Welcome */
    fake_detach(&g);
}

static void a_group_that_differs_is_refused_by_what_differs(void **state)
{
    static fixture f;
    static fake_group g;
    (void)state;
    fixture_start(&f, 8, 500);

    group_hello other = fake_hello(&f, 4);
    other.protocol = GROUP_PROTOCOL + 1;
    refuse(&f, &other, "protocol 2 of the group, 1 here");
    other = fake_hello(&f, 4);
    other.generation_config_json = base_view_of("{\"top_p\": 7}");
    refuse(&f, &other, "'top_p'");

    const group_hello hello = fake_hello(&f, 4);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    other = hello;
    other.model_hash = base_view_of("0011");
    refuse(&f, &other, "model_hash '0011'");
    other = hello;
    other.policy_hash = base_view_of("0022");
    refuse(&f, &other, "policy_hash '0022'");
    other = hello;
    other.page_format = 2;
    refuse(&f, &other, "page_format 2");
    fake_detach(&g);

    other = hello; /* also when the first one has gone */
    other.model_hash = base_view_of("0033");
    refuse(&f, &other, "model_hash '0033'");
    fixture_stop(&f);
}

static void a_first_message_that_is_no_hello_is_refused(void **state)
{
    static fixture f;
    static fake_group g;
    (void)state;
    fixture_start(&f, 8, 500);
    const group_hello hello = fake_hello(&f, 4);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    const group_up again = {.kind = GROUP_UP_HELLO, .hello = hello};
    fake_send(&g, &again);
    fake_expect_end(&g, RPC_INVALID_ARGUMENT, "a second hello");
    fake_detach(&g);
    fixture_stop(&f);
}

static void a_silent_group_is_dropped_after_two_seconds(void **state)
{
    static fixture f;
    static fake_group g;
    (void)state;
    fixture_start(&f, 8, 500);
    const group_hello hello = fake_hello(&f, 4);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    base_sleep_us(600000);
    fake_send_load(&g, 0, 8);
    const int64_t last_us = base_now_us();
    fake_expect_end(&g, RPC_UNAVAILABLE, "nothing was heard");
    const int64_t silent_us = g.ended_us - last_us;
    assert_true(silent_us >= 1900000);
    assert_true(silent_us < 3000000);
    assert_true(g.n_pings >= 4); /* one each 400 to 500 ms, silent or not */
    assert_false(fixture_is_serving(&f));
    fake_detach(&g);
    fixture_stop(&f);
}

static void a_lost_group_is_replayed_and_the_stream_goes_on_exactly(void **state)
{
    static fixture f;
    static fake_group first;
    static fake_group next;
    static client cl;
    static client waits;
    base_view stops[] = {{"t was t", 7}};
    (void)state;
    fixture_start(&f, 8, 5000);
    const group_hello hello = fake_hello(&f, 1);
    fake_attach(&first, &f, &hello);
    fake_expect_welcome(&first);

    /* " that" 317, " was" 310, " the" 265: the stop string lies across the loss. */
    inference_generate_request request = client_request("Once upon a time");
    request.stops = stops;
    request.n_stops = 1;
    client_start(&cl, f.clients, &request, 20000);
    const group_down *down = fake_next(&first, GROUP_DOWN_ADMIT);
    static int32_t want[64];
    const size_t n_prompt = down->admit.n_prompt;
    memcpy(want, down->admit.prompt, n_prompt * sizeof want[0]);
    fake_send_admitted(&first, down->seq);
    fake_send_tokens(&first, down->seq, TOKENS(265, 317), 2);
    fake_send_tokens(&first, down->seq, TOKENS(310), 1);
    client_wait_ids(&cl, 3);
    const inference_generate_request later = client_request("a");
    client_start(&waits, f.clients, &later, 20000);
    fixture_wait_waiting(&f, 1);
    fake_detach(&first);

    fake_attach(&next, &f, &hello);
    fake_expect_welcome(&next);
    down = fake_next(&next, GROUP_DOWN_ADMIT);
    memcpy(want + n_prompt, TOKENS(265, 317, 310), 3 * sizeof want[0]);
    assert_int_equal(down->admit.n_prompt, n_prompt + 3); /* the older one goes first */
    assert_int_equal(down->admit.n_sent, 3);
    assert_memory_equal(down->admit.prompt, want, (n_prompt + 3) * sizeof want[0]);
    assert_int_equal(down->admit.max_new_tokens, 32); /* counted from the prompt */
    assert_int_equal(down->admit.sampling.seed, 7);
    fake_send_admitted(&next, down->seq);
    fake_send_tokens(&next, down->seq, TOKENS(265), 1);
    assert_int_equal(fake_next(&next, GROUP_DOWN_CANCEL)->seq, down->seq);
    fake_send_ended(&next, down->seq, GROUP_END_CANCELLED, 0);
    client_expect_end(&cl, RPC_OK, "");
    assert_int_equal(cl.n_ids, 4);
    assert_memory_equal(cl.ids, TOKENS(265, 317, 310, 265), 4 * sizeof(int32_t));
    assert_string_equal(cl.text, " the tha");
    assert_int_equal(cl.finished->finished.reason, INFERENCE_FINISH_STOP_STRING);
    assert_int_equal(cl.finished->finished.new_tokens, 4);

    down = fake_next(&next, GROUP_DOWN_ADMIT);
    fake_send_admitted(&next, down->seq);
    fake_send_ended(&next, down->seq, GROUP_END_LENGTH, 0);
    client_expect_end(&waits, RPC_OK, "");
    client_free(&waits);
    client_free(&cl);
    fake_detach(&next);
    fixture_stop(&f);
}

static void a_sequence_that_was_complete_is_finished_without_a_replay(void **state)
{
    static fixture f;
    static fake_group g;
    static client cl;
    (void)state;
    fixture_start(&f, 8, 5000);
    const group_hello hello = fake_hello(&f, 1);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    const inference_generate_request request = client_request("a");
    client_start(&cl, f.clients, &request, 20000);
    const uint64_t seq = fake_next(&g, GROUP_DOWN_ADMIT)->seq;
    fake_send_admitted(&g, seq);
    fake_send_tokens(&g, seq, TOKENS(265, FIXTURE_EOS), 2);
    client_wait_ids(&cl, 2);
    fake_detach(&g); /* its Ended is lost with it */
    client_expect_end(&cl, RPC_OK, "");
    assert_int_equal(cl.finished->finished.reason, INFERENCE_FINISH_EOS);
    assert_int_equal(cl.finished->finished.stop_id, FIXTURE_EOS);
    client_free(&cl);
    fixture_stop(&f);
}

static void without_a_group_accepted_requests_end_in_time(void **state)
{
    static fixture f;
    static fake_group g;
    static client cl;
    (void)state;
    fixture_start(&f, 8, 300);
    const group_hello hello = fake_hello(&f, 1);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    const inference_generate_request request = client_request("a");
    client_start(&cl, f.clients, &request, 20000);
    const uint64_t seq = fake_next(&g, GROUP_DOWN_ADMIT)->seq;
    fake_send_admitted(&g, seq);
    const int64_t lost_us = base_now_us();
    fake_detach(&g);
    client_expect_end(&cl, RPC_UNAVAILABLE, "no worker group came back");
    assert_true(base_now_us() - lost_us >= 290000);
    client_free(&cl);
    fixture_stop(&f);
}

static void two_groups_share_the_work(void **state)
{
    static fixture f;
    static fake_group groups[2];
    static client clients[2];
    (void)state;
    fixture_start(&f, 8, 500);
    const group_hello hello = fake_hello(&f, 4);
    for (int i = 0; i < 2; i++) {
        fake_attach(&groups[i], &f, &hello);
        fake_expect_welcome(&groups[i]);
    }
    const inference_generate_request request = client_request("a");
    for (int i = 0; i < 2; i++) { /* the second goes where more blocks are left */
        client_start(&clients[i], f.clients, &request, 10000);
        const uint64_t seq = fake_next(&groups[i], GROUP_DOWN_ADMIT)->seq;
        fake_send_admitted(&groups[i], seq);
        fake_send_tokens(&groups[i], seq, TOKENS(265), 1);
        client_wait_ids(&clients[i], 1);
    }
    fake_detach(&groups[0]); /* what it had moves to the other one */
    const group_down *down = fake_next(&groups[1], GROUP_DOWN_ADMIT);
    assert_int_equal(down->admit.n_sent, 1);
    assert_true(fixture_is_serving(&f));
    for (int i = 0; i < 2; i++) {
        client_free(&clients[i]);
    }
    fake_detach(&groups[1]);
    fixture_stop(&f);
}

static void a_group_that_passes_its_credit_loses_the_sequence(void **state)
{
    static fixture f;
    static fake_group g;
    static client cl;
    static int32_t ids[65];
    (void)state;
    fixture_start(&f, 8, 500);
    const group_hello hello = fake_hello(&f, 4);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    inference_generate_request request = client_request("a");
    request.max_new_tokens = 100;
    client_start(&cl, f.clients, &request, 10000);
    const uint64_t seq = fake_next(&g, GROUP_DOWN_ADMIT)->seq;
    fake_send_admitted(&g, seq);
    fake_send_tokens(&g, seq, ids, 65);
    assert_int_equal(fake_next(&g, GROUP_DOWN_CANCEL)->seq, seq);
    client_expect_end(&cl, RPC_INTERNAL, "its credit is 64");
    client_free(&cl);
    fake_detach(&g);
    fixture_stop(&f);
}

static void a_drain_refuses_new_requests_and_lets_running_ones_end(void **state)
{
    static fixture f;
    static fake_group g;
    static client cl;
    static client late;
    (void)state;
    fixture_start(&f, 8, 500);
    const group_hello hello = fake_hello(&f, 4);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    const inference_generate_request request = client_request("a");
    client_start(&cl, f.clients, &request, 10000);
    const uint64_t seq = fake_next(&g, GROUP_DOWN_ADMIT)->seq;
    fake_send_admitted(&g, seq);
    fake_send_load(&g, 1, 7);

    coordinator_drain(f.c);
    assert_false(fixture_is_serving(&f));
    assert_int_equal(coordinator_live_requests(f.c), 1);
    client_start(&late, f.clients, &request, 10000);
    client_expect_end(&late, RPC_UNAVAILABLE, "shutting down");
    client_free(&late);
    fake_send_tokens(&g, seq, TOKENS(265), 1);
    fake_send_ended(&g, seq, GROUP_END_LENGTH, 0);
    client_expect_end(&cl, RPC_OK, "");
    assert_int_equal(coordinator_live_requests(f.c), 0);
    client_free(&cl);
    fake_detach(&g);
    fixture_stop(&f);
}

static void destroy_ends_what_still_runs(void **state)
{
    static fixture f;
    static fake_group g;
    static client cl;
    (void)state;
    fixture_start(&f, 8, 500);
    const group_hello hello = fake_hello(&f, 4);
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    const inference_generate_request request = client_request("a");
    client_start(&cl, f.clients, &request, 10000);
    const uint64_t seq = fake_next(&g, GROUP_DOWN_ADMIT)->seq;
    fake_send_admitted(&g, seq);
    coordinator_destroy(f.c);
    f.c = NULL;
    client_expect_end(&cl, RPC_UNAVAILABLE, "shutting down");
    assert_int_equal(fake_next(&g, GROUP_DOWN_CANCEL)->seq, seq);
    fake_expect_end(&g, RPC_UNAVAILABLE, "shutting down");
    client_free(&cl);
    fake_detach(&g);
    fixture_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_served_before_a_group_attaches),
        cmocka_unit_test(a_group_that_differs_is_refused_by_what_differs),
        cmocka_unit_test(a_first_message_that_is_no_hello_is_refused),
        cmocka_unit_test(a_silent_group_is_dropped_after_two_seconds),
        cmocka_unit_test(a_lost_group_is_replayed_and_the_stream_goes_on_exactly),
        cmocka_unit_test(a_sequence_that_was_complete_is_finished_without_a_replay),
        cmocka_unit_test(without_a_group_accepted_requests_end_in_time),
        cmocka_unit_test(two_groups_share_the_work),
        cmocka_unit_test(a_group_that_passes_its_credit_loses_the_sequence),
        cmocka_unit_test(a_drain_refuses_new_requests_and_lets_running_ones_end),
        cmocka_unit_test(destroy_ends_what_still_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
