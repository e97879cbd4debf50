#include "proto/inference_codec.h"
#include "tests/support/codec_same.h"
#include "tests/support/codec_test.h"

#include <math.h>
#include <stdlib.h>

#define N_RANDOM 200

/* ---- the decoders ---- */

CODEC(request, inference_generate_request, inference_generate_request_decode(bytes, mem, &got),
      inference_generate_request_free(decoded), inference_generate_request_encode(value, out),
      same_request(a, b));
/* Through a message of what came out, since no client of ours writes these two. */
static base_status tokenize_bytes(const inference_tokenize_request *r, base_bytes *out)
{
    const char head[] = {0x10, r->add_special, 0x18, r->parse_special, 0x0a, (char)r->text.n_bytes};
    assert_true(r->text.n_bytes < 128);
    const base_status st = base_bytes_add(out, head, sizeof head);
    return st != BASE_OK ? st : base_bytes_add(out, r->text.data, r->text.n_bytes);
}

static bool same_tokenize(const inference_tokenize_request *a, const inference_tokenize_request *b)
{
    return base_view_equal(a->text, b->text) && a->add_special == b->add_special &&
           a->parse_special == b->parse_special;
}

static bool same_detokenize(const inference_detokenize_request *a,
                            const inference_detokenize_request *b)
{
    return a->n_ids == b->n_ids && same_array(a->ids, b->ids, a->n_ids, sizeof(int32_t)) &&
           a->skip_special == b->skip_special;
}

/* A TokenizeResponse is a DetokenizeRequest without skip_special: ids are field 1 of both. */
static base_status detokenize_bytes(const inference_detokenize_request *r, base_bytes *out)
{
    const char tail[] = {0x10, r->skip_special};
    const base_status st = inference_tokenize_response_encode(r->ids, r->n_ids, out);
    return st != BASE_OK ? st : base_bytes_add(out, tail, sizeof tail);
}

CODEC(tokenize, inference_tokenize_request, inference_tokenize_request_decode(bytes, mem, &got),
      inference_tokenize_request_free(decoded), tokenize_bytes(value, out), same_tokenize(a, b));
CODEC(detokenize, inference_detokenize_request,
      inference_detokenize_request_decode(bytes, mem, &got),
      inference_detokenize_request_free(decoded), detokenize_bytes(value, out),
      same_detokenize(a, b));

/* ---- contents ---- */

typedef struct request_parts {
    char text[300];
    int32_t ids[64];
    int32_t stop_ids[INFERENCE_MAX_STOP_IDS + 1];
    base_view stops[INFERENCE_MAX_STOPS + 1];
    char stop_text[INFERENCE_MAX_STOPS + 1][40];
} request_parts;

static inference_generate_request random_request(codec_random *r, request_parts *p)
{
    inference_generate_request q = {
        .request_id = base_view_of("client 7, \xc3\xa9"),
        .model = base_view_of(draw(r, 2) ? "" : "tiny"),
        .has_text = draw(r, 2) == 1,
        .given = (uint32_t)draw(r, 128),
        .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
        .ignore_eos = draw(r, 2) == 1,
        .include_stop = draw(r, 2) == 1,
        .logprobs = (int32_t)draw(r, INFERENCE_MAX_LOGPROBS + 1),
    };
    if (q.has_text) {
        q.text = draw_text(r, p->text, sizeof p->text);
    } else {
        q.prompt_ids = p->ids;
        q.n_prompt_ids = draw_i32s(r, p->ids, 1 + draw(r, 64));
    }
    if (q.given & INFERENCE_GIVEN_TEMPERATURE) {
        q.sampling.temperature = 100 * draw_unit(r);
    }
    if (q.given & INFERENCE_GIVEN_TOP_P) {
        q.sampling.top_p = 1 - draw_unit(r) / 2;
    }
    if (q.given & INFERENCE_GIVEN_TOP_K) {
        q.sampling.top_k = draw_i32(r);
    }
    if (q.given & INFERENCE_GIVEN_MIN_P) {
        q.sampling.min_p = draw_unit(r);
    }
    if (q.given & INFERENCE_GIVEN_REPETITION_PENALTY) {
        q.sampling.repetition_penalty = 100 - 99 * draw_unit(r);
    }
    if (q.given & INFERENCE_GIVEN_SEED) {
        q.sampling.seed = draw(r, UINT64_MAX);
    }
    if (q.given & INFERENCE_GIVEN_MAX_NEW_TOKENS) {
        q.max_new_tokens = 1 + (int32_t)draw(r, INFERENCE_MAX_NEW_TOKENS);
    }
    q.stops = p->stops;
    q.n_stops = draw(r, INFERENCE_MAX_STOPS + 1);
    for (size_t i = 0; i < q.n_stops; i++) {
        p->stops[i] = draw_text(r, p->stop_text[i], sizeof p->stop_text[i]);
        if (p->stops[i].n_bytes == 0) {
            p->stops[i] = base_view_of(".");
        }
    }
    q.stop_ids = p->stop_ids;
    q.n_stop_ids = draw_i32s(r, p->stop_ids, draw(r, INFERENCE_MAX_STOP_IDS + 1));
    return q;
}

/* ---- round trips ---- */

static void every_message_comes_back_as_it_went(void **state)
{
    (void)state;
    codec_random r = {.seed = 1};
    request_parts rp;

    for (int i = 0; i < N_RANDOM; i++) {
        const inference_generate_request q = random_request(&r, &rp);
        codec_check_round_trip(&request, &q);

        char text[100];
        const inference_tokenize_request t = {
            .text = draw_text(&r, text, sizeof text),
            .add_special = draw(&r, 2) == 1,
            .parse_special = draw(&r, 2) == 1,
        };
        int32_t ids[20];
        const inference_detokenize_request d = {
            .ids = ids, .n_ids = draw_i32s(&r, ids, draw(&r, 21)), .skip_special = i % 2 == 1};
        codec_check_round_trip(&tokenize, &t);
        codec_check_round_trip(&detokenize, &d);
    }
}

static void limits_themselves_are_allowed(void **state)
{
    (void)state;
    static char long_text[INFERENCE_MAX_STOP_BYTES];
    memset(long_text, 'x', sizeof long_text);
    int32_t ids[INFERENCE_MAX_STOP_IDS] = {INT32_MAX};
    base_view stops[INFERENCE_MAX_STOPS];
    for (int i = 0; i < INFERENCE_MAX_STOPS; i++) {
        stops[i] = (base_view){long_text, sizeof long_text};
    }
    const inference_generate_request q = {
        .request_id = {long_text, INFERENCE_MAX_REQUEST_ID_BYTES},
        .prompt_ids = ids,
        .n_prompt_ids = 1,
        .given = 127,
        .sampling = {.temperature = 100,
                     .top_p = 1,
                     .min_p = 1,
                     .repetition_penalty = 100,
                     .top_k = INT32_MAX,
                     .seed = UINT64_MAX},
        .max_new_tokens = INFERENCE_MAX_NEW_TOKENS,
        .stops = stops,
        .n_stops = INFERENCE_MAX_STOPS,
        .stop_ids = ids,
        .n_stop_ids = INFERENCE_MAX_STOP_IDS,
        .logprobs = INFERENCE_MAX_LOGPROBS,
    };
    codec_check_round_trip(&request, &q);
}

static void a_request_without_options_has_defaults(void **state)
{
    (void)state;
    static const char bytes[] = {0x1a, 0}; /* text = "" and nothing else */
    inference_generate_request *q = NULL;

    CHECK_STATUS(
        inference_generate_request_decode((base_view){bytes, sizeof bytes}, &base_heap, &q),
        BASE_OK);
    const inference_generate_request want = {
        .has_text = true, .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f}};
    assert_true(same_request(q, &want));
    inference_generate_request_free(q);
    inference_generate_request_free(NULL);
}

static void an_optional_zero_is_not_an_absent_field(void **state)
{
    (void)state;
    const inference_generate_request q = {.has_text = true,
                                          .given = INFERENCE_GIVEN_TEMPERATURE |
                                                   INFERENCE_GIVEN_SEED | INFERENCE_GIVEN_TOP_K,
                                          .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f}};
    codec_check_round_trip(&request, &q);
}

static void the_wire_is_what_other_languages_write(void **state)
{
    (void)state;
    /* As protoc's own encoders write it: packed ids, `optional` with presence. */
    static const char want[] = "\x0a\x02id"
                               "\x22\x05\x0a\x03\x01\xac\x02"
                               "\x2a\x05\x0d\x00\x00\x00\x3f"
                               "\x32\x05\x08\x05\x12\x01\n";
    int32_t ids[] = {1, 300};
    base_view stop = base_view_of("\n");
    const inference_generate_request q = {
        .request_id = base_view_of("id"),
        .prompt_ids = ids,
        .n_prompt_ids = 2,
        .given = INFERENCE_GIVEN_TEMPERATURE | INFERENCE_GIVEN_MAX_NEW_TOKENS,
        .sampling = {.temperature = 0.5f, .top_p = 1, .repetition_penalty = 1},
        .max_new_tokens = 5,
        .stops = &stop,
        .n_stops = 1,
    };
    base_bytes bytes;
    base_bytes_init(&bytes, 1000, &base_heap);
    CHECK_STATUS(inference_generate_request_encode(&q, &bytes), BASE_OK);
    assert_int_equal(bytes.n_bytes, sizeof want - 1);
    assert_memory_equal(bytes.data, want, sizeof want - 1);
    base_bytes_reset(&bytes);
}

static void ids_may_come_unpacked(void **state)
{
    (void)state;
    static const char bytes[] = {0x08, 5, 0x08, 7, 0x10, 1};
    inference_detokenize_request *d = NULL;
    CHECK_STATUS(
        inference_detokenize_request_decode((base_view){bytes, sizeof bytes}, &base_heap, &d),
        BASE_OK);
    assert_int_equal(d->n_ids, 2);
    assert_int_equal(d->ids[0], 5);
    assert_int_equal(d->ids[1], 7);
    assert_true(d->skip_special);
    inference_detokenize_request_free(d);
    inference_detokenize_request_free(NULL);
    inference_tokenize_request_free(NULL);
}

static void a_million_prompt_ids_come_through(void **state)
{
    (void)state;
    const size_t n = 1000000;
    int32_t *ids = malloc(n * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(base_random_u64(3, 0, i) % 152000);
    }
    const inference_generate_request q = {.prompt_ids = ids,
                                          .n_prompt_ids = n,
                                          .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f}};
    codec_check_round_trip(&request, &q);
    free(ids);
}

/* ---- refusals ---- */

static inference_generate_request plain_request(void)
{
    return (inference_generate_request){.has_text = true,
                                        .given = 127,
                                        .max_new_tokens = 1,
                                        .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f}};
}

static void a_request_past_a_limit_is_refused_by_name(void **state)
{
    (void)state;
    inference_generate_request q = plain_request();
    static char long_text[INFERENCE_MAX_STOP_BYTES + 1];
    memset(long_text, 'x', sizeof long_text);
    base_view stops[INFERENCE_MAX_STOPS + 1];
    for (size_t i = 0; i <= INFERENCE_MAX_STOPS; i++) {
        stops[i] = base_view_of("s");
    }
    int32_t ids[INFERENCE_MAX_STOP_IDS + 1] = {0};
    int32_t negative[] = {3, -1};
    base_view empty_stop[] = {base_view_of("a"), {NULL, 0}};
    base_view long_stop[] = {{long_text, INFERENCE_MAX_STOP_BYTES + 1}};
    base_view bad_stop[] = {base_view_of("a\xff")};

    codec_check_round_trip(&request, &q);
    REFUSED(request, q, x->sampling.top_p = 1.5f, "field 'sampling.top_p' is 1.5, allowed (0, 1]");
    REFUSED(request, q, x->sampling.top_p = 0, "field 'sampling.top_p' is 0,");
    REFUSED(request, q, x->sampling.top_p = NAN, "field 'sampling.top_p' is nan");
    REFUSED(request, q, x->sampling.temperature = nextafterf(100, 200),
            "field 'sampling.temperature' is 100.00000");
    REFUSED(request, q, x->sampling.temperature = -0.5f,
            "'sampling.temperature' is -0.5, allowed [0, 100]");
    REFUSED(request, q, x->sampling.temperature = INFINITY, "'sampling.temperature' is inf");
    REFUSED(request, q, x->sampling.min_p = 1.25f,
            "field 'sampling.min_p' is 1.25, allowed [0, 1]");
    REFUSED(request, q, x->sampling.min_p = NAN, "field 'sampling.min_p' is nan");
    REFUSED(request, q, x->sampling.repetition_penalty = 0,
            "field 'sampling.repetition_penalty' is 0, allowed (0, 100]");
    REFUSED(request, q, x->sampling.repetition_penalty = 101,
            "field 'sampling.repetition_penalty' is 101");
    REFUSED(request, q, x->sampling.repetition_penalty = NAN,
            "field 'sampling.repetition_penalty' is nan");
    REFUSED(request, q, x->sampling.top_k = -1,
            "field 'sampling.top_k' is 4294967295, allowed 0..2147483647");
    REFUSED(request, q, x->max_new_tokens = 0,
            "field 'stopping.max_new_tokens' is 0, allowed 1..16777216");
    REFUSED(request, q, x->max_new_tokens = INFERENCE_MAX_NEW_TOKENS + 1,
            "field 'stopping.max_new_tokens' is 16777217");
    REFUSED(request, q, x->logprobs = 21, "field 'logprobs' is 21, allowed 0..20");
    REFUSED(request, q, (x->stops = stops, x->n_stops = 17),
            "field 'stopping.stop' has 17 entries, allowed 0..16");
    REFUSED(request, q, (x->stops = empty_stop, x->n_stops = 2),
            "field 'stopping.stop[1]' has 0 bytes, allowed 1..1024");
    REFUSED(request, q, (x->stops = long_stop, x->n_stops = 1),
            "field 'stopping.stop[0]' has 1025 bytes");
    REFUSED(request, q, (x->stops = bad_stop, x->n_stops = 1),
            "field 'stopping.stop[0]' is not valid UTF-8 at byte 1");
    REFUSED(request, q, (x->stop_ids = ids, x->n_stop_ids = 65),
            "field 'stopping.stop_token_ids' has 65 entries, allowed 0..64");
    REFUSED(request, q, (x->stop_ids = negative, x->n_stop_ids = 2),
            "field 'stopping.stop_token_ids[1]' is 4294967295");
    REFUSED(request, q, x->request_id = ((base_view){long_text, 129}),
            "field 'request_id' has 129 bytes, allowed 0..128");
    REFUSED(request, q, x->request_id = base_view_of("a\nb"),
            "field 'request_id' has control character 0x0a at byte 1");
    REFUSED(request, q, x->request_id = base_view_of("a\x7f"), "field 'request_id' has control");
    REFUSED(request, q, x->request_id = base_view_of("\xc2\x9b"), "field 'request_id' has control");
    REFUSED(request, q, x->request_id = ((base_view){"\0", 1}), "field 'request_id' has control");
    REFUSED(request, q, x->request_id = base_view_of("\xe9"),
            "field 'request_id' is not valid UTF-8 at byte 0");
    REFUSED(request, q, x->model = base_view_of("m\xc0\x80"),
            "field 'model' is not valid UTF-8 at byte 1");
    REFUSED(request, q, x->text = base_view_of("ab\xed\xa0\x80"),
            "field 'text' is not valid UTF-8 at byte 2");
    REFUSED(request, q, x->has_text = false, "field 'token_ids.ids' has 0 entries, allowed 1..");
    REFUSED(request, q, (x->has_text = false, x->prompt_ids = negative, x->n_prompt_ids = 2),
            "field 'token_ids.ids[1]' is 4294967295");
}

static void a_request_without_a_prompt_is_refused(void **state)
{
    (void)state;
    inference_generate_request *q = NULL;
    CHECK_STATUS(inference_generate_request_decode((base_view){NULL, 0}, &base_heap, &q),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("field 'prompt' is missing");
    assert_null(q);
}

static void text_and_ids_to_convert_are_checked(void **state)
{
    (void)state;
    int32_t negative[] = {-1};
    const inference_tokenize_request t = {.text = base_view_of("\xe2\x82")};
    const inference_detokenize_request d = {.ids = negative, .n_ids = 1};
    codec_check_refused(&tokenize, &t, "field 'text' is not valid UTF-8 at byte 0");
    codec_check_refused(&detokenize, &d, "field 'ids[0]' is 4294967295");
}

static void a_message_that_would_swell_is_refused(void **state)
{
    (void)state;
    /* Unknown fields of two bytes: each is kept by the parser, at many times its size. */
    const size_t n_bytes = (size_t)8 << 20;
    char *bytes = malloc(n_bytes);
    assert_non_null(bytes);
    for (size_t i = 0; i < n_bytes; i += 2) {
        bytes[i] = 0x78; /* field 15, varint */
        bytes[i + 1] = 1;
    }
    inference_detokenize_request *d = NULL;
    CHECK_STATUS(inference_detokenize_request_decode((base_view){bytes, n_bytes}, &base_heap, &d),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("would take more than");
    assert_null(d);
    free(bytes);
}

/* ---- damage ---- */

typedef void (*codec_check)(const codec_under_test *codec, base_view bytes);

static void over_samples(codec_check check)
{
    codec_random r = {.seed = 6};
    request_parts rp;
    inference_generate_request q = random_request(&r, &rp);
    q.has_text = false;
    q.prompt_ids = rp.ids;
    q.n_prompt_ids = draw_i32s(&r, rp.ids, 5);
    q.given = 127;
    q.max_new_tokens = 9;
    const inference_tokenize_request t = {.text = {"a\0b", 3}, .add_special = true};
    const inference_detokenize_request d = {.ids = rp.ids, .n_ids = 3, .skip_special = true};
    const struct {
        const codec_under_test *codec;
        const void *value;
    } samples[] = {{&request, &q}, {&tokenize, &t}, {&detokenize, &d}};

    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        base_bytes bytes;
        base_bytes_init(&bytes, 100000, &base_heap);
        CHECK_STATUS(samples[i].codec->encode(samples[i].value, &bytes), BASE_OK);
        check(samples[i].codec, base_bytes_view(&bytes));
        base_bytes_reset(&bytes);
    }
}

static void a_message_cut_anywhere_does_no_harm(void **state)
{
    (void)state;
    over_samples(codec_check_cuts);
}

static void fields_of_a_later_version_are_ignored(void **state)
{
    (void)state;
    over_samples(codec_check_unknown_fields);
}

static void decoding_survives_every_failed_allocation(void **state)
{
    (void)state;
    over_samples(codec_check_decode_without_memory);
}

static void encoding_is_all_or_nothing(void **state)
{
    (void)state;
    codec_random r = {.seed = 7};
    request_parts p;
    inference_generate_request q = random_request(&r, &p);
    q.stops[0] = base_view_of("stop");
    q.n_stops = 1;
    codec_check_encode_fails_whole(&request, &q);
}

static void responses_append_to_what_is_there(void **state)
{
    (void)state;
    static const char want[] = "xy\x0a\x03"
                               "a\0b";
    base_bytes bytes;
    base_bytes_init(&bytes, 100, &base_heap);
    CHECK_STATUS(base_bytes_add(&bytes, "xy", 2), BASE_OK);
    CHECK_STATUS(inference_detokenize_response_encode((base_view){"a\0b", 3}, &bytes), BASE_OK);
    assert_int_equal(bytes.n_bytes, sizeof want - 1);
    assert_memory_equal(bytes.data, want, sizeof want - 1);
    base_bytes_reset(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back_as_it_went),
        cmocka_unit_test(limits_themselves_are_allowed),
        cmocka_unit_test(a_request_without_options_has_defaults),
        cmocka_unit_test(an_optional_zero_is_not_an_absent_field),
        cmocka_unit_test(the_wire_is_what_other_languages_write),
        cmocka_unit_test(ids_may_come_unpacked),
        cmocka_unit_test(a_million_prompt_ids_come_through),
        cmocka_unit_test(a_request_past_a_limit_is_refused_by_name),
        cmocka_unit_test(a_request_without_a_prompt_is_refused),
        cmocka_unit_test(text_and_ids_to_convert_are_checked),
        cmocka_unit_test(a_message_that_would_swell_is_refused),
        cmocka_unit_test(a_message_cut_anywhere_does_no_harm),
        cmocka_unit_test(fields_of_a_later_version_are_ignored),
        cmocka_unit_test(decoding_survives_every_failed_allocation),
        cmocka_unit_test(encoding_is_all_or_nothing),
        cmocka_unit_test(responses_append_to_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
