#include "base/file.h"
#include "coordinator/request.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#define TOKENS(...) ((const int32_t[]){__VA_ARGS__})

#define VOCAB 5000 /* of the model: more than the tokenizer's 4096, as padded embeddings have */

static char *tokenizer_json;
static coord_model *model;

static group_hello hello_of(size_t n_tokenizer_bytes)
{
    static const int32_t eos[] = {1};
    static const char sha256[16] = "fifteen letters";
    return (group_hello){.protocol = GROUP_PROTOCOL,
                         .model = base_view_of("demo"),
                         .model_hash = base_view_of("aa"),
                         .policy = base_view_of("bf16"),
                         .policy_hash = base_view_of("bb"),
                         .ranks = 1,
                         .vocab_size = VOCAB,
                         .n_layers = 2,
                         .n_kv_heads = 3,
                         .head_dim = 64,
                         .tokenizer_json = {tokenizer_json, n_tokenizer_bytes},
                         .tokenizer_sha256 = {sha256, sizeof sha256},
                         .eos_ids = eos,
                         .n_eos_ids = 1};
}

static int make_model(void **state)
{
    size_t n_bytes = 0;
    (void)state;
    CHECK_STATUS(base_file_read("models/demo/tokenizer.json", (size_t)16 << 20, &base_heap,
                                &tokenizer_json, &n_bytes),
                 BASE_OK);
    const group_hello hello = hello_of(n_bytes);
    CHECK_STATUS(coord_model_create(&hello, &base_heap, &model), BASE_OK);
    return 0;
}

static int free_model(void **state)
{
    (void)state;
    coord_model_destroy(model);
    base_heap.put(base_heap.ctx, tokenizer_json);
    return 0;
}

static const inference_generate_request plain = {.given = INFERENCE_GIVEN_MAX_NEW_TOKENS,
                                                 .max_new_tokens = 200,
                                                 .sampling = {.top_p = 1, .repetition_penalty = 1}};

static base_status make_with(const inference_generate_request *wire, const base_alloc *mem,
                             coord_request **request_out)
{
    return coord_request_create(model, wire, TOKENS(0, 265), 2, 1000, 99, 1000, mem, request_out);
}

static coord_request *make(const inference_generate_request *wire)
{
    coord_request *request = NULL;
    CHECK_STATUS(make_with(wire, &base_heap, &request), BASE_OK);
    return request;
}

static group_down *admit(coord_request *request)
{
    base_bytes bytes;
    group_down *down = NULL;
    base_bytes_init(&bytes, 1 << 20, &base_heap);
    CHECK_STATUS(coord_request_encode_admit(request, 5, 0, &bytes), BASE_OK);
    CHECK_STATUS(group_down_decode(base_bytes_view(&bytes), &base_heap, &down), BASE_OK);
    base_bytes_reset(&bytes);
    request->state = COORD_REQUEST_RUNNING;
    return down;
}

static base_status take(coord_request *request, const int32_t *ids, size_t n_ids, char *text_out)
{
    const group_up up = {.kind = GROUP_UP_TOKENS, .ids = ids, .n_ids = n_ids};
    base_bytes bytes;
    inference_event *event = NULL;
    int32_t n_taken = 0;
    base_bytes_init(&bytes, 1 << 20, &base_heap);
    const base_status st = coord_request_take_tokens(request, &up, 2000, &bytes, &n_taken);
    if (st == BASE_OK) {
        CHECK_STATUS(inference_event_decode(base_bytes_view(&bytes), &base_heap, &event), BASE_OK);
        assert_int_equal(event->n_ids, n_taken);
        memcpy(text_out, event->text.n_bytes > 0 ? event->text.data : "", event->text.n_bytes);
        text_out[event->text.n_bytes] = '\0';
        inference_event_free(event, &base_heap);
    }
    base_bytes_reset(&bytes);
    return st;
}

static void the_three_parts_of_the_credit_make_the_window(void **state)
{
    coord_request *request = make(&plain);
    int32_t ids[COORD_WINDOW] = {0};
    char text[512];
    (void)state;
    for (int i = 0; i < COORD_WINDOW; i++) {
        ids[i] = 265;
    }
    base_heap.put(base_heap.ctx, admit(request));
    CHECK_STATUS(take(request, ids, 10, text), BASE_OK);
    assert_int_equal(coord_request_take_drained(request), 0); /* saved up */
    CHECK_STATUS(take(request, ids, 10, text), BASE_OK);
    assert_int_equal(request->window + request->in_flight + request->returnable, COORD_WINDOW);
    assert_int_equal(coord_request_take_drained(request), 20);
    assert_int_equal(request->window, COORD_WINDOW);
    CHECK_STATUS(take(request, ids, COORD_WINDOW, text), BASE_OK);
    CHECK_STATUS(take(request, ids, 1, text), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("its credit is 0");
    coord_request_destroy(request);
}

static void a_replay_brings_what_was_sent_and_no_second_window(void **state)
{
    coord_request *request = make(&plain);
    char text[512];
    (void)state;
    base_heap.put(base_heap.ctx, admit(request));
    CHECK_STATUS(take(request, TOKENS(310, 317), 2, text), BASE_OK);
    group_down *down = admit(request);
    assert_int_equal(down->admit.n_prompt, 4);
    assert_memory_equal(down->admit.prompt, TOKENS(0, 265, 310, 317), 4 * sizeof(int32_t));
    assert_int_equal(down->admit.n_sent, 2);
    assert_int_equal(down->admit.credit, COORD_WINDOW - 2); /* two lie in the client's queue */
    assert_int_equal(down->admit.max_new_tokens, 200);
    assert_int_equal(down->admit.sampling.seed, 99);
    base_heap.put(base_heap.ctx, down);
    coord_request_destroy(request);
}

static void credit_that_drains_before_the_group_answers_is_not_lost(void **state)
{
    coord_request *request = make(&plain);
    int32_t ids[COORD_WINDOW] = {0};
    char text[512];
    (void)state;
    base_heap.put(base_heap.ctx, admit(request));
    CHECK_STATUS(take(request, ids, COORD_WINDOW, text), BASE_OK);
    base_heap.put(base_heap.ctx, admit(request)); /* with a window of 0 */
    request->state = COORD_REQUEST_ADMITTED;
    assert_int_equal(coord_request_take_drained(request), COORD_WINDOW);
    coord_request_destroy(request);
}

static void ids_without_text_pass_and_ids_outside_do_not(void **state)
{
    coord_request *request = make(&plain);
    char text[512];
    (void)state;
    base_heap.put(base_heap.ctx, admit(request));
    CHECK_STATUS(take(request, TOKENS(265, VOCAB - 1, 310), 3, text), BASE_OK);
    assert_string_equal(text, " the was");
    CHECK_STATUS(take(request, TOKENS(VOCAB), 1, text), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("tokens.ids[0] is 5000");
    coord_request_destroy(request);
}

static void no_more_than_max_new_tokens_are_taken(void **state)
{
    inference_generate_request wire = plain;
    char text[512];
    (void)state;
    wire.max_new_tokens = 2;
    coord_request *request = make(&wire);
    base_heap.put(base_heap.ctx, admit(request));
    CHECK_STATUS(take(request, TOKENS(265, 310, 317), 3, text), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("max_new_tokens 2");
    coord_request_destroy(request);
}

static void a_complete_sequence_is_known_by_its_last_token(void **state)
{
    static int32_t stop_ids[] = {317};
    inference_generate_request wire = plain;
    char text[512];
    int32_t stop_id = -1;
    (void)state;
    wire.stop_ids = stop_ids;
    wire.n_stop_ids = 1;
    wire.max_new_tokens = 4;
    coord_request *request = make(&wire);
    base_heap.put(base_heap.ctx, admit(request));
    assert_int_equal(coord_request_is_complete(request, &stop_id), INFERENCE_FINISH_UNSPECIFIED);
    CHECK_STATUS(take(request, TOKENS(1), 1, text), BASE_OK);
    assert_int_equal(coord_request_is_complete(request, &stop_id), INFERENCE_FINISH_EOS);
    assert_int_equal(stop_id, 1);
    request->ignore_eos = true;
    assert_int_equal(coord_request_is_complete(request, &stop_id), INFERENCE_FINISH_UNSPECIFIED);
    CHECK_STATUS(take(request, TOKENS(317), 1, text), BASE_OK);
    assert_int_equal(coord_request_is_complete(request, &stop_id), INFERENCE_FINISH_STOP_TOKEN);
    assert_int_equal(stop_id, 317);
    CHECK_STATUS(take(request, TOKENS(265, 265), 2, text), BASE_OK);
    assert_int_equal(coord_request_is_complete(request, &stop_id), INFERENCE_FINISH_LENGTH);
    coord_request_destroy(request);
}

static void held_back_text_comes_out_at_the_end(void **state)
{
    base_view stops[] = {{"the was not", 11}};
    inference_generate_request wire = plain;
    char text[512];
    base_bytes bytes;
    inference_event *event = NULL;
    (void)state;
    wire.stops = stops;
    wire.n_stops = 1;
    coord_request *request = make(&wire);
    base_heap.put(base_heap.ctx, admit(request));
    CHECK_STATUS(take(request, TOKENS(265, 310), 2, text), BASE_OK);
    assert_string_equal(text, " ");
    base_bytes_init(&bytes, 1 << 20, &base_heap);
    CHECK_STATUS(coord_request_encode_rest(request, &bytes), BASE_OK);
    CHECK_STATUS(inference_event_decode(base_bytes_view(&bytes), &base_heap, &event), BASE_OK);
    assert_int_equal(event->n_ids, 0);
    assert_true(base_view_equal(event->text, base_view_of("the was")));
    inference_event_free(event, &base_heap);
    base_bytes_reset(&bytes);
    coord_request_destroy(request);
}

static void the_timings_are_of_the_first_admission_and_the_tokens(void **state)
{
    coord_request *request = make(&plain);
    base_bytes bytes;
    inference_event *event = NULL;
    (void)state;
    request->n_made = 3;
    request->admitted_us = 1000 + 2000;
    request->first_token_us = 1000 + 5000;
    request->last_token_us = 1000 + 9000;
    base_bytes_init(&bytes, 1 << 20, &base_heap);
    CHECK_STATUS(coord_request_encode_finished(request, INFERENCE_FINISH_LENGTH, 0, 1, NULL, 0,
                                               1000 + 10000, &bytes),
                 BASE_OK);
    CHECK_STATUS(inference_event_decode(base_bytes_view(&bytes), &base_heap, &event), BASE_OK);
    assert_true(event->finished.queue_ms == 2 && event->finished.ttft_ms == 5);
    assert_true(event->finished.tpot_ms == 2 && event->finished.total_ms == 10);
    assert_int_equal(event->finished.kv.bf16_bytes_per_token, 2 * 3 * 64 * 4);
    inference_event_free(event, &base_heap);
    base_bytes_reset(&bytes);
    request->n_made = 0;
    coord_request_destroy(request);
}

static void limits_are_named(void **state)
{
    static int32_t outside[] = {-1};
    inference_generate_request wire = plain;
    coord_request *request = NULL;
    (void)state;
    CHECK_STATUS(coord_request_create(model, &wire, NULL, 0, 1000, 0, 0, &base_heap, &request),
                 BASE_BAD_INPUT);
    wire.max_new_tokens = 999;
    CHECK_STATUS(make_with(&wire, &base_heap, &request), BASE_OUT_OF_RANGE);
    CHECK_ERROR_NAMES("prompt of 2 tokens and max_new_tokens 999 are above max_context 1000");
    wire = plain;
    wire.stop_ids = outside;
    wire.n_stop_ids = 1;
    CHECK_STATUS(make_with(&wire, &base_heap, &request), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("stop_token_ids[0] is -1");
    wire = plain;
    wire.given = 0;
    CHECK_STATUS(
        coord_request_create(model, &wire, TOKENS(0, 1, 2), 3, 3, 0, 0, &base_heap, &request),
        BASE_OUT_OF_RANGE); /* no room for one token */
    assert_null(request);
}

static void create_survives_every_failed_allocation(void **state)
{
    base_view stops[] = {{"ab", 2}, {"c", 1}};
    inference_generate_request wire = plain;
    (void)state;
    wire.stops = stops;
    wire.n_stops = 2;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        coord_request *request = NULL;
        const base_status st = make_with(&wire, &mem, &request);
        if (st == BASE_OK) {
            assert_true(k > 3);
            coord_request_destroy(request);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(request);
        assert_int_equal(f.n_live, 0);
    }
}

/* All of the model's own allocations, and samples of the tokenizer's, which has its own sweep. */
static void a_model_survives_failed_allocations(void **state)
{
    failing_alloc count = {.fail_at = -1};
    const base_alloc counting = {failing_get, failing_put, &count};
    coord_model *made = NULL;
    const group_hello hello = hello_of(strlen(tokenizer_json));
    (void)state;
    CHECK_STATUS(coord_model_create(&hello, &counting, &made), BASE_OK);
    coord_model_destroy(made);
    assert_int_equal(count.n_live, 0);
    made = NULL;
    for (int k = 0; k < count.n_calls; k += k < 12 ? 1 : 1 + count.n_calls / 16) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        const base_status st = coord_model_create(&hello, &mem, &made);
        if (k >= 12 && st == BASE_OK) { /* an allocation that only makes the tokenizer faster */
            coord_model_destroy(made);
            made = NULL;
        } else {
            assert_int_equal(st, BASE_NO_MEMORY);
        }
        assert_null(made);
        assert_int_equal(f.n_live, 0);
    }
}

/* Also with an empty tokenizer_sha256, which the decoder lets through. */
static void a_model_without_tokenizer_serves_ids_and_no_text(void **state)
{
    group_hello hello = hello_of(0);
    coord_model *bare = NULL;
    coord_request *request = NULL;
    inference_generate_request wire = plain;
    base_view stops[] = {base_view_of("end")};
    base_bytes rest;
    char text[512];
    (void)state;
    hello.tokenizer_sha256 = (base_view){NULL, 0};
    CHECK_STATUS(coord_model_create(&hello, &base_heap, &bare), BASE_OK);
    assert_null(bare->tokenizer);
    CHECK_STATUS(coord_model_check_same(bare, &hello), BASE_OK);
    CHECK_STATUS(coord_model_check_text(bare, "prompt.text"), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("prompt.text");
    CHECK_STATUS(coord_model_check_text(model, "prompt.text"), BASE_OK);
    CHECK_STATUS(
        coord_request_create(bare, &wire, TOKENS(0, 1), 2, 1000, 0, 0, &base_heap, &request),
        BASE_OK);
    base_heap.put(base_heap.ctx, admit(request));
    CHECK_STATUS(take(request, TOKENS(3, 4), 2, text), BASE_OK);
    assert_string_equal(text, "");
    base_bytes_init(&rest, 1 << 20, &base_heap);
    CHECK_STATUS(coord_request_encode_rest(request, &rest), BASE_OK);
    assert_int_equal(rest.n_bytes, 0);
    base_bytes_reset(&rest);
    coord_request_destroy(request);
    request = NULL;
    wire.stops = stops;
    wire.n_stops = 1;
    CHECK_STATUS(
        coord_request_create(bare, &wire, TOKENS(0, 1), 2, 1000, 0, 0, &base_heap, &request),
        BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("stopping.stop");
    assert_null(request);
    coord_model_destroy(bare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_three_parts_of_the_credit_make_the_window),
        cmocka_unit_test(a_replay_brings_what_was_sent_and_no_second_window),
        cmocka_unit_test(credit_that_drains_before_the_group_answers_is_not_lost),
        cmocka_unit_test(ids_without_text_pass_and_ids_outside_do_not),
        cmocka_unit_test(no_more_than_max_new_tokens_are_taken),
        cmocka_unit_test(a_complete_sequence_is_known_by_its_last_token),
        cmocka_unit_test(held_back_text_comes_out_at_the_end),
        cmocka_unit_test(the_timings_are_of_the_first_admission_and_the_tokens),
        cmocka_unit_test(limits_are_named),
        cmocka_unit_test(a_model_without_tokenizer_serves_ids_and_no_text),
        cmocka_unit_test(create_survives_every_failed_allocation),
        cmocka_unit_test(a_model_survives_failed_allocations),
    };
    return cmocka_run_group_tests(tests, make_model, free_model);
}
