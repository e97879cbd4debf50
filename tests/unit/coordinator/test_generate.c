/* Generate through a real coordinator, with a scripted group on the other side. */
#include "base/clock.h"
#include "tests/support/test.h"
#include "tests/unit/coordinator/fixture.h"

#define TOKENS(...) ((const int32_t[]){__VA_ARGS__})

/* Of the demo tokenizer: " the" 265, " was" 310, " that" 317, "he" 260, " a" 261, "in" 262. */

typedef struct scene {
    fixture f;
    fake_group g;
    client cl;
} scene;

static void open_scene(scene *s, int32_t max_waiting, int32_t max_batch)
{
    fixture_start(&s->f, max_waiting, 500);
    const group_hello hello = fake_hello(&s->f, max_batch);
    fake_attach(&s->g, &s->f, &hello);
    fake_expect_welcome(&s->g);
}

static void close_scene(scene *s)
{
    fake_detach(&s->g);
    fixture_stop(&s->f);
}

/* The next Admit, answered. */
static uint64_t admit_next(fake_group *g)
{
    const uint64_t seq = fake_next(g, GROUP_DOWN_ADMIT)->seq;
    fake_send_admitted(g, seq);
    return seq;
}

static void text_and_ids_reach_the_client(void **state)
{
    static scene s;
    (void)state;
    open_scene(&s, 8, 4);
    inference_generate_request request = client_request("Once upon a time there was a");
    request.model = base_view_of("demo");
    request.logprobs = 2;
    client_start(&s.cl, s.f.clients, &request, 10000);

    const group_down *down = fake_next(&s.g, GROUP_DOWN_ADMIT);
    const group_admit *a = &down->admit;
    assert_int_equal(a->n_prompt, 9);
    assert_memory_equal(a->prompt, TOKENS(0, 2180, 334, 809, 261, 581, 459, 310, 261),
                        9 * sizeof(int32_t));
    assert_int_equal(a->n_sent, 0);
    assert_int_equal(a->max_new_tokens, 32);
    assert_int_equal(a->credit, 64);
    assert_int_equal(a->sampling.seed, 7);
    assert_int_equal(a->n_eos_ids, 1);
    fake_send_admitted(&s.g, down->seq);
    fake_send(&s.g,
              &(group_up){.kind = GROUP_UP_PROGRESS, .seq = down->seq, .done = 9, .total = 9});
    client_wait_progress(&s.cl);
    fake_send(&s.g, &(group_up){.kind = GROUP_UP_TOKENS,
                                .seq = down->seq,
                                .ids = TOKENS(265, 310),
                                .n_ids = 2,
                                .logprobs = (const float[]){-0.5F, -0.25F},
                                .n_top = 2,
                                .top_ids = TOKENS(265, 1, 310, 2),
                                .top_logprobs = (const float[]){-0.5F, -1, -0.25F, -2}});
    fake_send_tokens(&s.g, down->seq, TOKENS(317, FIXTURE_EOS), 2);
    fake_send_ended(&s.g, down->seq, GROUP_END_EOS, FIXTURE_EOS);
    client_expect_end(&s.cl, RPC_OK, "");

    assert_int_equal(s.cl.n_ids, 4);
    assert_memory_equal(s.cl.ids, TOKENS(265, 310, 317, FIXTURE_EOS), 4 * sizeof(int32_t));
    assert_string_equal(s.cl.text, " the was that");
    assert_int_equal(s.cl.n_progress, 1);
    assert_int_equal(s.cl.n_logprobs, 2);
    const inference_finished *end = &s.cl.finished->finished;
    assert_int_equal(end->reason, INFERENCE_FINISH_EOS);
    assert_int_equal(end->stop_id, FIXTURE_EOS);
    assert_int_equal(end->prompt_tokens, 9);
    assert_int_equal(end->new_tokens, 4);
    assert_int_equal(end->seed, 7);
    assert_true(end->total_ms >= end->ttft_ms && end->ttft_ms >= end->queue_ms);
    assert_true(end->ttft_ms > 0);
    assert_int_equal(end->kv.ranks, 2);
    assert_int_equal(end->kv.n_blocks_per_rank, 2);
    assert_int_equal(end->kv.blocks_per_rank[0], 1);
    assert_int_equal(end->kv.bf16_bytes_per_token, 6144);
    client_free(&s.cl);

    inference_model_info *info = fixture_info(&s.f);
    assert_int_equal(info->requests_finished, 1);
    assert_int_equal(info->running, 0);
    assert_int_equal(info->ranks, 2);
    assert_int_equal(info->bytes_per_page, 202752);
    assert_int_equal(info->weight_bytes_per_rank[1], 6);
    assert_true(base_view_equal(info->exchange, base_view_of("mpi")));
    base_heap.put(base_heap.ctx, info);
    close_scene(&s);
}

static void a_seed_is_drawn_and_returned(void **state)
{
    static scene s;
    (void)state;
    open_scene(&s, 8, 4);
    inference_generate_request request = client_request("a");
    request.given &= ~(uint32_t)INFERENCE_GIVEN_SEED;
    client_start(&s.cl, s.f.clients, &request, 10000);
    const group_down *down = fake_next(&s.g, GROUP_DOWN_ADMIT);
    const uint64_t seed = down->admit.sampling.seed;
    fake_send_admitted(&s.g, down->seq);
    fake_send_ended(&s.g, down->seq, GROUP_END_LENGTH, 0);
    client_expect_end(&s.cl, RPC_OK, "");
    assert_true(seed != 0); /* 0 comes once in 2^64 runs */
    assert_true(s.cl.finished->finished.seed == seed);
    client_free(&s.cl);
    close_scene(&s);
}

static void a_stop_string_across_tokens_ends_the_text_and_cancels_at_the_group(void **state)
{
    static scene s;
    base_view stops[] = {{"t tha", 5}, {"s th", 4}};
    (void)state;
    open_scene(&s, 8, 4);
    inference_generate_request request = client_request("a");
    request.stops = stops;
    request.n_stops = 2;
    client_start(&s.cl, s.f.clients, &request, 10000);
    const uint64_t seq = admit_next(&s.g);
    fake_send_tokens(&s.g, seq, TOKENS(265, 310), 2);
    fake_send_tokens(&s.g, seq, TOKENS(317, 265, 265), 3); /* " was that": "s th" is inside */
    assert_int_equal(fake_next(&s.g, GROUP_DOWN_CANCEL)->seq, seq);
    fake_send_tokens(&s.g, seq, TOKENS(265), 1); /* crossed the Cancel */
    fake_send_ended(&s.g, seq, GROUP_END_CANCELLED, 0);
    client_expect_end(&s.cl, RPC_OK, "");
    assert_string_equal(s.cl.text, " the wa");
    assert_int_equal(s.cl.n_ids, 3);
    assert_int_equal(s.cl.finished->finished.reason, INFERENCE_FINISH_STOP_STRING);
    assert_true(base_view_equal(s.cl.finished->finished.stop, stops[1]));
    assert_int_equal(s.cl.finished->finished.kv.n_blocks_per_rank, 2);
    client_free(&s.cl);
    close_scene(&s);
}

static void a_stop_string_ends_the_call_even_if_the_group_stays_silent_about_it(void **state)
{
    static scene s;
    base_view stops[] = {{"the", 3}};
    (void)state;
    open_scene(&s, 8, 4);
    inference_generate_request request = client_request("a");
    request.stops = stops;
    request.n_stops = 1;
    request.include_stop = true;
    client_start(&s.cl, s.f.clients, &request, 10000);
    fake_send_tokens(&s.g, admit_next(&s.g), TOKENS(265), 1);
    client_expect_end(&s.cl, RPC_OK, "");
    assert_string_equal(s.cl.text, " the");
    client_free(&s.cl);
    close_scene(&s);
}

static void a_cancel_reaches_the_group_and_is_counted(void **state)
{
    static scene s;
    (void)state;
    open_scene(&s, 8, 1);
    const inference_generate_request request = client_request("a");
    client_start(&s.cl, s.f.clients, &request, 10000);
    const uint64_t seq = admit_next(&s.g);
    fake_send_tokens(&s.g, seq, TOKENS(265), 1);
    client_wait_ids(&s.cl, 1);
    rpc_client_cancel(s.cl.call);
    assert_int_equal(fake_next(&s.g, GROUP_DOWN_CANCEL)->seq, seq);
    client_expect_end(&s.cl, RPC_CANCELLED, "");
    client_free(&s.cl);

    /* The only slot is free again when the group says so, not before. */
    client_start(&s.cl, s.f.clients, &request, 10000);
    assert_true(fake_is_quiet(&s.g, 50));
    fake_send_ended(&s.g, seq, GROUP_END_CANCELLED, 0);
    fake_send_ended(&s.g, admit_next(&s.g), GROUP_END_LENGTH, 0);
    client_expect_end(&s.cl, RPC_OK, "");
    client_free(&s.cl);
    inference_model_info *info = fixture_info(&s.f);
    assert_int_equal(info->requests_cancelled, 1);
    assert_int_equal(info->requests_finished, 1);
    base_heap.put(base_heap.ctx, info);
    close_scene(&s);
}

static void a_deadline_that_passes_in_the_queue_frees_the_place(void **state)
{
    static scene s;
    static client late;
    (void)state;
    open_scene(&s, 1, 1);
    const inference_generate_request request = client_request("a");
    client_start(&s.cl, s.f.clients, &request, 10000);
    const uint64_t seq = admit_next(&s.g);
    client_start(&late, s.f.clients, &request, 200);
    client_expect_end(&late, RPC_DEADLINE_EXCEEDED, "");
    client_free(&late);
    fixture_wait_waiting(&s.f, 0); /* the server notices on its own clock */
    inference_model_info *info = fixture_info(&s.f);
    assert_int_equal(info->requests_cancelled, 1);
    base_heap.put(base_heap.ctx, info);
    fake_send_ended(&s.g, seq, GROUP_END_LENGTH, 0);
    client_expect_end(&s.cl, RPC_OK, "");
    assert_true(fake_is_quiet(&s.g, 50)); /* the late one was never admitted */
    client_free(&s.cl);
    close_scene(&s);
}

static void a_full_queue_is_refused_and_names_its_limit(void **state)
{
    static scene s;
    static client waits;
    static client refused;
    (void)state;
    open_scene(&s, 1, 1);
    const inference_generate_request request = client_request("a");
    client_start(&s.cl, s.f.clients, &request, 10000);
    const uint64_t seq = admit_next(&s.g);
    client_start(&waits, s.f.clients, &request, 10000);
    fixture_wait_waiting(&s.f, 1);
    client_start(&refused, s.f.clients, &request, 10000);
    client_expect_end(&refused, RPC_RESOURCE_EXHAUSTED, "limit is 1");
    client_free(&refused);
    fake_send_ended(&s.g, seq, GROUP_END_LENGTH, 0);
    client_expect_end(&s.cl, RPC_OK, "");
    fake_send_ended(&s.g, admit_next(&s.g), GROUP_END_LENGTH, 0);
    client_expect_end(&waits, RPC_OK, "");
    client_free(&waits);
    client_free(&s.cl);
    close_scene(&s);
}

static void a_refusal_for_now_waits_for_room_and_keeps_its_place(void **state)
{
    static scene s;
    static client second;
    (void)state;
    open_scene(&s, 8, 4);
    const inference_generate_request one = client_request("a");
    const inference_generate_request two = client_request("a a");
    client_start(&s.cl, s.f.clients, &one, 10000);
    const group_down *down = fake_next(&s.g, GROUP_DOWN_ADMIT);
    const size_t n_first = down->admit.n_prompt;
    fake_send(&s.g, &(group_up){.kind = GROUP_UP_REFUSED,
                                .seq = down->seq,
                                .retry = true,
                                .reason_text = base_view_of("no blocks")});
    fake_send_load(&s.g, 1, 0);
    fixture_wait_waiting(&s.f, 1);
    client_start(&second, s.f.clients, &two, 10000);
    fake_send_load(&s.g, 1, 0);
    assert_true(fake_is_quiet(&s.g, 150)); /* also over a tick of the timer */
    fake_send_load(&s.g, 1, 4);
    down = fake_next(&s.g, GROUP_DOWN_ADMIT);
    assert_int_equal(down->admit.n_prompt, n_first); /* not overtaken */
    fake_send_admitted(&s.g, down->seq);
    fake_send_ended(&s.g, down->seq, GROUP_END_LENGTH, 0);
    fake_send_ended(&s.g, admit_next(&s.g), GROUP_END_LENGTH, 0);
    client_expect_end(&s.cl, RPC_OK, "");
    client_expect_end(&second, RPC_OK, "");
    client_free(&second);
    client_free(&s.cl);
    close_scene(&s);
}

static void a_refusal_for_good_ends_the_call_with_its_reason(void **state)
{
    static scene s;
    (void)state;
    open_scene(&s, 8, 4);
    const inference_generate_request request = client_request("a");
    client_start(&s.cl, s.f.clients, &request, 10000);
    const uint64_t seq = fake_next(&s.g, GROUP_DOWN_ADMIT)->seq;
    fake_send(&s.g, &(group_up){.kind = GROUP_UP_REFUSED,
                                .seq = seq,
                                .reason_text = base_view_of("9 blocks, the pools hold 8")});
    client_expect_end(&s.cl, RPC_OUT_OF_RANGE, "the pools hold 8");
    client_free(&s.cl);
    client_start(&s.cl, s.f.clients, &request, 10000);
    fake_send(&s.g, &(group_up){.kind = GROUP_UP_REFUSED,
                                .seq = fake_next(&s.g, GROUP_DOWN_ADMIT)->seq,
                                .invalid = true,
                                .reason_text = base_view_of("prompt token 0 is 9")});
    client_expect_end(&s.cl, RPC_INVALID_ARGUMENT, "prompt token 0 is 9");
    client_free(&s.cl);
    close_scene(&s);
}

static void bad_requests_are_refused_by_field_and_limit(void **state)
{
    static scene s;
    int32_t outside[] = {5, FIXTURE_VOCAB};
    (void)state;
    open_scene(&s, 8, 4);
    inference_generate_request request = client_request("a");
    request.model = base_view_of("other");
    client_start(&s.cl, s.f.clients, &request, 10000);
    client_expect_end(&s.cl, RPC_NOT_FOUND, "'other'");
    client_free(&s.cl);

    request = client_request("a");
    request.max_new_tokens = FIXTURE_MAX_CONTEXT;
    client_start(&s.cl, s.f.clients, &request, 10000);
    client_expect_end(&s.cl, RPC_OUT_OF_RANGE, "max_new_tokens 1024 are above max_context 1024");
    client_free(&s.cl);

    request = client_request(NULL);
    request.has_text = false;
    request.prompt_ids = outside;
    request.n_prompt_ids = 2;
    client_start(&s.cl, s.f.clients, &request, 10000);
    client_expect_end(&s.cl, RPC_INVALID_ARGUMENT, "prompt.token_ids[1] is 4096");
    client_free(&s.cl);

    static char text[8 * FIXTURE_MAX_CONTEXT]; /* far more words than the context has tokens */
    memset(text, 'a', sizeof text - 1);
    for (size_t i = 1; i < sizeof text - 1; i += 2) {
        text[i] = ' ';
    }
    request = client_request(text);
    client_start(&s.cl, s.f.clients, &request, 10000);
    client_expect_end(&s.cl, RPC_OUT_OF_RANGE, "more than max_context 1024");
    client_free(&s.cl);

    static const char undecodable[] = {0x0a, 0x7f};
    base_bytes reply;
    rpc_code code = RPC_OK;
    char reason[RPC_MAX_STATUS_BYTES + 1];
    base_bytes_init(&reply, 1024, &base_heap);
    CHECK_STATUS(rpc_client_unary(s.f.clients, "/ropewalk.v1.Inference/Generate",
                                  (base_view){undecodable, sizeof undecodable}, 5000, &reply, &code,
                                  reason),
                 BASE_OK);
    assert_int_equal(code, RPC_INVALID_ARGUMENT);
    base_bytes_reset(&reply);

    assert_true(fake_is_quiet(&s.g, 20)); /* nothing of this reached the group */
    inference_model_info *info = fixture_info(&s.f);
    assert_int_equal(info->requests_refused, 5);
    base_heap.put(base_heap.ctx, info);
    close_scene(&s);
}

static void the_default_number_of_tokens_is_cut_to_what_fits(void **state)
{
    static scene s;
    static int32_t prompt[FIXTURE_MAX_CONTEXT - 10];
    (void)state;
    open_scene(&s, 8, 4);
    inference_generate_request request = client_request(NULL);
    request.has_text = false;
    request.given = 0;
    request.max_new_tokens = 0;
    request.prompt_ids = prompt;
    request.n_prompt_ids = FIXTURE_MAX_CONTEXT - 10;
    client_start(&s.cl, s.f.clients, &request, 10000);
    assert_int_equal(fake_next(&s.g, GROUP_DOWN_ADMIT)->admit.max_new_tokens, 10);
    client_free(&s.cl);
    close_scene(&s);
}

/* Sends one token after the other while there is credit; returns how many went. */
static size_t pour(fake_group *g, uint64_t seq, int64_t *credit, size_t n_left)
{
    size_t n_sent = 0;
    float top_logprobs[20];
    int32_t top_ids[20];
    for (int i = 0; i < 20; i++) {
        top_ids[i] = 4000 + i;
        top_logprobs[i] = -1.5F * (float)i;
    }
    for (; *credit > 0 && n_sent < n_left; n_sent++, --*credit) {
        fake_send(g, &(group_up){.kind = GROUP_UP_TOKENS,
                                 .seq = seq,
                                 .ids = TOKENS(265),
                                 .n_ids = 1,
                                 .logprobs = (const float[]){-1},
                                 .n_top = 20,
                                 .top_ids = top_ids,
                                 .top_logprobs = top_logprobs});
    }
    return n_sent;
}

static void a_client_that_does_not_read_stops_its_own_sequence_only(void **state)
{
    static fixture f;
    static fake_group g;
    static client reads;
    static client slow;
    rpc_channel *slow_channel = NULL;
    (void)state;
    fixture_start(&f, 8, 500);
    group_hello hello = fake_hello(&f, 4);
    const int64_t many[] = {1 << 20, 1 << 20};
    hello.max_context = 1 << 22;
    hello.blocks_total_per_rank = many;
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);

    CHECK_STATUS(rpc_channel_create(f.listen, &slow_channel), BASE_OK);
    inference_generate_request request = client_request("a");
    request.logprobs = 20;
    request.max_new_tokens = 1 << 20;
    client_start(&slow, slow_channel, &request, 30000);
    const uint64_t seq = admit_next(&g);
    client_pause(&slow, true);

    /* Tokens flow until window, queue and the network's buffers are full, and no further. */
    int64_t credit = 64;
    size_t n_sent = 0;
    while (n_sent < 100000) {
        n_sent += pour(&g, seq, &credit, 100000 - n_sent);
        const int64_t until_us = base_now_us() + 300000;
        while (credit == 0 && base_now_us() < until_us) {
            if (!fake_is_quiet(&g, 50)) {
                g.n_read--;
                credit += fake_next(&g, GROUP_DOWN_CREDIT)->credit;
            }
        }
        if (credit == 0) {
            break;
        }
    }
    assert_true(n_sent >= 64);
    assert_int_equal(credit, 0);
    assert_true(n_sent < 100000); /* 150 bytes each: the network's buffers hold some MB */

    const inference_generate_request other = client_request("a");
    client_start(&reads, f.clients, &other, 10000);
    const uint64_t seq_2 = admit_next(&g);
    fake_send_tokens(&g, seq_2, TOKENS(265, 310), 2);
    fake_send_ended(&g, seq_2, GROUP_END_LENGTH, 0);
    client_expect_end(&reads, RPC_OK, "");
    client_free(&reads);

    client_pause(&slow, false); /* and it goes on when the client does */
    assert_true(fake_next(&g, GROUP_DOWN_CREDIT)->credit > 0);
    client_wait_ids(&slow, n_sent);
    client_free(&slow);
    rpc_channel_destroy(slow_channel);
    fake_detach(&g);
    fixture_stop(&f);
}

static void two_hundred_streams_run_at_once(void **state)
{
    enum { N = 200, PER = 40 };
    static fixture f;
    static fake_group g;
    static client clients[N];
    static uint64_t seqs[N];
    (void)state;
    fixture_start(&f, N, 500);
    group_hello hello = fake_hello(&f, N);
    const int64_t many[] = {4096, 4096};
    hello.blocks_total_per_rank = many;
    fake_attach(&g, &f, &hello);
    fake_expect_welcome(&g);
    inference_generate_request request = client_request("a");
    request.max_new_tokens = PER;
    for (int i = 0; i < N; i++) {
        client_start(&clients[i], f.clients, &request, 60000);
    }
    for (int i = 0; i < N; i++) {
        seqs[i] = admit_next(&g);
    }
    for (int k = 0; k < PER; k++) {
        for (int i = 0; i < N; i++) {
            fake_send_tokens(&g, seqs[i], TOKENS(265 + k), 1);
        }
    }
    for (int i = 0; i < N; i++) {
        fake_send_ended(&g, seqs[i], GROUP_END_LENGTH, 0);
    }
    for (int i = 0; i < N; i++) {
        client_expect_end(&clients[i], RPC_OK, "");
        assert_int_equal(clients[i].n_ids, PER);
        for (int k = 0; k < PER; k++) {
            assert_int_equal(clients[i].ids[k], 265 + k);
        }
        client_free(&clients[i]);
    }
    fake_detach(&g);
    fixture_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_and_ids_reach_the_client),
        cmocka_unit_test(a_seed_is_drawn_and_returned),
        cmocka_unit_test(a_stop_string_across_tokens_ends_the_text_and_cancels_at_the_group),
        cmocka_unit_test(a_stop_string_ends_the_call_even_if_the_group_stays_silent_about_it),
        cmocka_unit_test(a_cancel_reaches_the_group_and_is_counted),
        cmocka_unit_test(a_deadline_that_passes_in_the_queue_frees_the_place),
        cmocka_unit_test(a_full_queue_is_refused_and_names_its_limit),
        cmocka_unit_test(a_refusal_for_now_waits_for_room_and_keeps_its_place),
        cmocka_unit_test(a_refusal_for_good_ends_the_call_with_its_reason),
        cmocka_unit_test(bad_requests_are_refused_by_field_and_limit),
        cmocka_unit_test(the_default_number_of_tokens_is_cut_to_what_fits),
        cmocka_unit_test(a_client_that_does_not_read_stops_its_own_sequence_only),
        cmocka_unit_test(two_hundred_streams_run_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
