#include "proto/inference_codec.h"
#include "tests/support/codec_same.h"
#include "tests/support/codec_test.h"

#include <math.h>

#define N_RANDOM 200

CODEC(event, inference_event, inference_event_decode(bytes, mem, &got),
      inference_event_free(decoded, mem), inference_event_encode(value, out), same_event(a, b));
CODEC(info, inference_model_info, inference_model_info_decode(bytes, mem, &got),
      mem->put(mem->ctx, decoded), inference_model_info_encode(value, out), same_info(a, b));

/* ---- contents ---- */

#define MAX_EVENT_IDS 12

typedef struct event_parts {
    int32_t ids[MAX_EVENT_IDS];
    char text[100];
    char stop[50];
    int32_t blocks[8];
    inference_token_logprobs logprobs[MAX_EVENT_IDS];
    int32_t top_ids[MAX_EVENT_IDS][INFERENCE_MAX_LOGPROBS + 1];
    float top_logprobs[MAX_EVENT_IDS][INFERENCE_MAX_LOGPROBS + 1];
} event_parts;

static inference_event random_tokens(codec_random *r, event_parts *p, size_t n_ids, bool logprobs)
{
    inference_event e = {.kind = INFERENCE_EVENT_TOKENS, .ids = p->ids};
    e.n_ids = draw_i32s(r, p->ids, n_ids);
    e.text = draw_text(r, p->text, sizeof p->text);
    e.logprobs = p->logprobs;
    e.n_logprobs = logprobs ? n_ids : 0;
    for (size_t i = 0; i < e.n_logprobs; i++) {
        const size_t n_top = draw(r, INFERENCE_MAX_LOGPROBS + 1);
        (void)draw_i32s(r, p->top_ids[i], n_top);
        draw_logprobs(r, p->top_logprobs[i], n_top);
        p->logprobs[i] = (inference_token_logprobs){-draw_unit(r), (int32_t)n_top, p->top_ids[i],
                                                    p->top_logprobs[i]};
    }
    return e;
}

static inference_event random_finished(codec_random *r, event_parts *p)
{
    inference_event e = {.kind = INFERENCE_EVENT_FINISHED};
    e.finished = (inference_finished){
        .reason = (inference_finish_reason)draw(r, 5),
        .stop = draw_text(r, p->stop, sizeof p->stop),
        .stop_id = draw_i32(r),
        .prompt_tokens = draw_i64(r),
        .new_tokens = draw_i64(r),
        .seed = draw(r, UINT64_MAX),
        .queue_ms = (double)draw_unit(r),
        .ttft_ms = 1e6 * (double)draw_unit(r),
        .tpot_ms = (double)draw_unit(r),
        .total_ms = 1e9 * (double)draw_unit(r),
        .kv = {.policy = base_view_of("tq:k=3,v=3"),
               .ranks = draw_i32(r),
               .k_bits_per_element = 3.125,
               .v_bits_per_element = (double)draw_unit(r),
               .bytes_per_token = draw_i64(r),
               .bf16_bytes_per_token = draw_i64(r),
               .bytes_per_page = draw_i64(r),
               .blocks_per_rank = p->blocks},
    };
    e.finished.kv.n_blocks_per_rank = draw_i32s(r, p->blocks, draw(r, 9));
    return e;
}

static inference_event random_event(codec_random *r, event_parts *p)
{
    switch (draw(r, 3)) {
    case 0: {
        inference_event e = {.kind = INFERENCE_EVENT_PREFILL, .prefill_total = draw_i64(r)};
        e.prefill_done = (int64_t)draw(r, (uint64_t)e.prefill_total + 1);
        return e;
    }
    case 1: return random_tokens(r, p, draw(r, MAX_EVENT_IDS + 1), draw(r, 2) == 1);
    default: return random_finished(r, p);
    }
}

typedef struct info_parts {
    char model[30], build[30];
    int64_t total[8], free[8], weights[8];
} info_parts;

static inference_model_info random_info(codec_random *r, info_parts *p)
{
    inference_model_info i = {
        .model = draw_text(r, p->model, sizeof p->model),
        .model_hash = base_view_of("0123456789abcdef"),
        .policy = base_view_of("kivi:k=2,v=2,g=32"),
        .policy_hash = base_view_of("ff"),
        .build = draw_text(r, p->build, sizeof p->build),
        .vocab_size = draw_i32(r),
        .max_context = draw_i64(r),
        .n_layers = draw_i32(r),
        .n_heads = draw_i32(r),
        .n_kv_heads = draw_i32(r),
        .head_dim = draw_i32(r),
        .groups = draw_i32(r),
        .ranks = (int32_t)draw(r, 9),
        .block_tokens = 128,
        .blocks_total_per_rank = p->total,
        .blocks_free_per_rank = p->free,
        .running = draw_i32(r),
        .waiting = draw_i32(r),
        .requests_finished = draw_i64(r),
        .requests_cancelled = draw_i64(r),
        .requests_refused = draw_i64(r),
        .k_bits_per_element = (double)draw_unit(r),
        .v_bits_per_element = 16,
        .bytes_per_token = draw_i64(r),
        .bytes_per_page = draw_i64(r),
        .weight_bytes_per_rank = p->weights,
        .exchange = base_view_of("nccl-ag"),
    };
    for (int32_t k = 0; k < i.ranks; k++) {
        p->total[k] = draw_i64(r);
        p->free[k] = draw_i64(r);
        p->weights[k] = draw_i64(r);
    }
    return i;
}

/* ---- round trips ---- */

static void every_message_comes_back_as_it_went(void **state)
{
    (void)state;
    codec_random r = {.seed = 1};
    event_parts ep;
    info_parts ip;

    for (int i = 0; i < N_RANDOM; i++) {
        const inference_event e = random_event(&r, &ep);
        const inference_model_info m = random_info(&r, &ip);
        codec_check_round_trip(&event, &e);
        codec_check_round_trip(&info, &m);
    }
}

static void a_finish_without_its_parts_is_all_zero(void **state)
{
    (void)state;
    static const char bytes[] = "\x1a\x02\x08\x02"; /* reason EOS and nothing else */
    const inference_event want = {.kind = INFERENCE_EVENT_FINISHED,
                                  .finished = {.reason = INFERENCE_FINISH_EOS}};
    inference_event *e = NULL;
    CHECK_STATUS(inference_event_decode((base_view){bytes, sizeof bytes - 1}, &base_heap, &e),
                 BASE_OK);
    assert_true(same_event(e, &want));
    inference_event_free(e, &base_heap);
    inference_event_free(NULL, &base_heap);
}

/* ---- refusals ---- */

static void an_event_past_a_limit_is_refused_by_name(void **state)
{
    (void)state;
    codec_random r = {.seed = 4};
    event_parts p;
    inference_event e = random_tokens(&r, &p, 3, true);
    inference_event f = random_finished(&r, &p);
    inference_event prefill = {.kind = INFERENCE_EVENT_PREFILL, .prefill_total = 4};
    int32_t negative[] = {0, 1, -7};
    float nans[] = {0, NAN};
    inference_token_logprobs bad[3] = {{.logprob = -1}, {.logprob = -1}, {.logprob = -1}};

    codec_check_round_trip(&event, &e);
    codec_check_round_trip(&event, &f);
    codec_check_round_trip(&event, &prefill);
    REFUSED(event, prefill, x->prefill_done = 5, "field 'prefill.done' is 5, allowed 0..4");
    REFUSED(event, prefill, x->prefill_total = -1, "field 'prefill.total' is 18446744073709551615");
    REFUSED(event, e, x->ids = negative, "field 'tokens.ids[2]' is 4294967289");
    REFUSED(event, e, x->text = base_view_of("\x80"),
            "field 'tokens.text' is not valid UTF-8 at byte 0");
    REFUSED(event, e, x->n_logprobs = 2, "field 'tokens.logprobs' has 2 entries, allowed 3");
    bad[1].logprob = -INFINITY;
    REFUSED(event, e, x->logprobs = bad, "field 'tokens.logprobs[1].logprob[0]' is -inf");
    bad[1] = (inference_token_logprobs){-1, 2, negative + 1, nans};
    REFUSED(event, e, x->logprobs = bad, "field 'tokens.logprobs[1].top_ids[1]' is 4294967289");
    bad[1].top_ids = negative;
    REFUSED(event, e, x->logprobs = bad, "field 'tokens.logprobs[1].top_logprobs[1]' is nan");
    bad[1] = (inference_token_logprobs){-1, 21, p.top_ids[0], p.top_logprobs[0]};
    memset(p.top_ids[0], 0, sizeof p.top_ids[0]);
    REFUSED(event, e, x->logprobs = bad,
            "field 'tokens.logprobs[1].top_ids' has 21 entries, allowed 0..20");

    REFUSED(event, f, x->finished.reason = (inference_finish_reason)5,
            "field 'finished.reason' is 5, allowed 0..4");
    REFUSED(event, f, x->finished.stop = base_view_of("\xff"), "field 'finished.stop' is not");
    REFUSED(event, f, x->finished.stop_id = -1, "field 'finished.stop_id' is 4294967295");
    REFUSED(event, f, x->finished.prompt_tokens = -1, "field 'finished.usage.prompt_tokens' is");
    REFUSED(event, f, x->finished.new_tokens = -1, "field 'finished.usage.new_tokens' is");
    REFUSED(event, f, x->finished.queue_ms = -1, "field 'finished.timing.queue_ms' is -1");
    REFUSED(event, f, x->finished.ttft_ms = NAN, "field 'finished.timing.ttft_ms' is nan");
    REFUSED(event, f, x->finished.tpot_ms = INFINITY, "field 'finished.timing.tpot_ms' is inf");
    REFUSED(event, f, x->finished.total_ms = NAN, "field 'finished.timing.total_ms' is nan");
    REFUSED(event, f, x->finished.kv.policy = base_view_of("\xff"), "field 'finished.kv.policy'");
    REFUSED(event, f, x->finished.kv.ranks = -1, "field 'finished.kv.ranks' is");
    REFUSED(event, f, x->finished.kv.k_bits_per_element = NAN,
            "field 'finished.kv.k_bits_per_element'");
    REFUSED(event, f, x->finished.kv.v_bits_per_element = -1,
            "field 'finished.kv.v_bits_per_element'");
    REFUSED(event, f, x->finished.kv.bytes_per_token = -1, "field 'finished.kv.bytes_per_token'");
    REFUSED(event, f, x->finished.kv.bf16_bytes_per_token = -1,
            "field 'finished.kv.bf16_bytes_per_token'");
    REFUSED(event, f, x->finished.kv.bytes_per_page = -1,
            "field 'finished.kv.bytes_per_rank_page'");
    REFUSED(event, f,
            (x->finished.kv.blocks_per_rank = negative, x->finished.kv.n_blocks_per_rank = 3),
            "field 'finished.kv.blocks_per_rank[2]' is");
}

static void an_event_of_no_kind_is_refused(void **state)
{
    (void)state;
    inference_event *e = NULL;
    /* A top list whose two arrays differ in length, which our encoder cannot write. */
    static const char uneven[] = "\x12\x09\x0a\x01\x05\x1a\x04\x12\x02\x01\x02";
    CHECK_STATUS(inference_event_decode((base_view){NULL, 0}, &base_heap, &e), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("field 'event' is missing");
    CHECK_STATUS(inference_event_decode((base_view){uneven, sizeof uneven - 1}, &base_heap, &e),
                 BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("field 'tokens.logprobs[0].top_logprobs' has 0 entries, allowed 2");
    assert_null(e);
}

static void a_model_info_past_a_limit_is_refused_by_name(void **state)
{
    (void)state;
    codec_random r = {.seed = 5};
    info_parts p;
    inference_model_info i = random_info(&r, &p);
    i.ranks = 2;
    int64_t negative[] = {0, -1};
    static const char no_blocks[] = {0x68, 1}; /* ranks = 1 */
    inference_model_info *got = NULL;

    codec_check_round_trip(&info, &i);
    REFUSED(info, i, x->model = base_view_of("\xff"), "field 'model' is not valid UTF-8");
    REFUSED(info, i, x->policy_hash = base_view_of("\xff"), "field 'policy_hash' is not valid");
    REFUSED(info, i, x->vocab_size = -1, "field 'vocab_size' is 4294967295");
    REFUSED(info, i, x->block_tokens = -1, "field 'block_tokens' is");
    REFUSED(info, i, x->max_context = -1, "field 'max_context' is");
    REFUSED(info, i, x->requests_refused = -1, "field 'requests_refused' is");
    REFUSED(info, i, x->k_bits_per_element = NAN, "field 'k_bits_per_element' is nan");
    REFUSED(info, i, x->v_bits_per_element = -1, "field 'v_bits_per_element' is -1");
    REFUSED(info, i, x->blocks_total_per_rank = negative, "field 'blocks_total_per_rank[1]' is");
    REFUSED(info, i, x->blocks_free_per_rank = negative, "field 'blocks_free_per_rank[1]' is");
    REFUSED(info, i, x->bytes_per_page = -1, "field 'bytes_per_page' is");
    REFUSED(info, i, x->weight_bytes_per_rank = negative, "field 'weight_bytes_per_rank[1]' is");
    REFUSED(info, i, x->exchange = base_view_of("\xff"), "field 'exchange' is not valid UTF-8");
    CHECK_STATUS(
        inference_model_info_decode((base_view){no_blocks, sizeof no_blocks}, &base_heap, &got),
        BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("field 'blocks_total_per_rank' has 0 entries, allowed 1");
    assert_null(got);
}

/* ---- damage ---- */

typedef void (*codec_check)(const codec_under_test *codec, base_view bytes);

static void over_samples(codec_check check)
{
    codec_random r = {.seed = 6};
    event_parts ep;
    event_parts fp;
    info_parts ip;
    const inference_event tokens = random_tokens(&r, &ep, 2, true);
    const inference_event finished = random_finished(&r, &fp);
    const inference_event prefill = {.kind = INFERENCE_EVENT_PREFILL, .prefill_total = 9};
    const inference_model_info m = random_info(&r, &ip);
    const struct {
        const codec_under_test *codec;
        const void *value;
    } samples[] = {{&event, &tokens}, {&event, &finished}, {&event, &prefill}, {&info, &m}};

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
    event_parts ep;
    event_parts fp;
    info_parts ip;
    const inference_event tokens = random_tokens(&r, &ep, 5, true);
    const inference_event finished = random_finished(&r, &fp);
    const inference_model_info m = random_info(&r, &ip);
    codec_check_encode_fails_whole(&event, &tokens);
    codec_check_encode_fails_whole(&event, &finished);
    codec_check_encode_fails_whole(&info, &m);
}

static void finish_reasons_have_names(void **state)
{
    (void)state;
    static const char *const names[] = {"unspecified", "length", "eos", "stop_token",
                                        "stop_string"};
    for (int i = 0; i < 5; i++) {
        assert_string_equal(inference_finish_reason_name((inference_finish_reason)i), names[i]);
    }
    assert_string_equal(inference_finish_reason_name((inference_finish_reason)5), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_back_as_it_went),
        cmocka_unit_test(a_finish_without_its_parts_is_all_zero),
        cmocka_unit_test(an_event_past_a_limit_is_refused_by_name),
        cmocka_unit_test(an_event_of_no_kind_is_refused),
        cmocka_unit_test(a_model_info_past_a_limit_is_refused_by_name),
        cmocka_unit_test(a_message_cut_anywhere_does_no_harm),
        cmocka_unit_test(fields_of_a_later_version_are_ignored),
        cmocka_unit_test(decoding_survives_every_failed_allocation),
        cmocka_unit_test(encoding_is_all_or_nothing),
        cmocka_unit_test(finish_reasons_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
