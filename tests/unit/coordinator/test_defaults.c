#include "coordinator/defaults.h"
#include "tests/support/test.h"

static coord_defaults parse(const char *json)
{
    coord_defaults d;
    CHECK_STATUS(coord_defaults_parse(base_view_of(json), 1000, &d), BASE_OK);
    return d;
}

static void refuse(const char *json, const char *text)
{
    coord_defaults d = {.max_new_tokens = -7};
    CHECK_STATUS(coord_defaults_parse(base_view_of(json), 1000, &d), BASE_BAD_FILE);
    CHECK_ERROR_NAMES(text);
    assert_int_equal(d.max_new_tokens, -7);
}

static void without_a_file_the_documented_defaults_hold(void **state)
{
    const coord_defaults d = parse("");
    (void)state;
    assert_true(d.sampling.temperature == 0 && d.sampling.top_p == 1 && d.sampling.min_p == 0);
    assert_true(d.sampling.repetition_penalty == 1);
    assert_int_equal(d.sampling.top_k, 0);
    assert_int_equal(d.max_new_tokens, 256);
    assert_int_equal(d.n_eos_ids, 0);
}

static void a_temperature_counts_only_with_do_sample(void **state)
{
    (void)state;
    assert_true(parse("{\"temperature\": 0.5}").sampling.temperature == 0);
    assert_true(parse("{\"do_sample\": false, \"temperature\": 0.5}").sampling.temperature == 0);
    assert_true(parse("{\"do_sample\": true, \"temperature\": 0.5}").sampling.temperature == 0.5F);
    assert_true(parse("{\"do_sample\": true}").sampling.temperature == 1);
}

static void every_field_is_read(void **state)
{
    const coord_defaults d = parse("{\"do_sample\": true, \"temperature\": 0.25, \"top_p\": 0.5,"
                                   " \"top_k\": 20, \"min_p\": 0.125, \"repetition_penalty\": 1.5,"
                                   " \"max_new_tokens\": 64, \"eos_token_id\": [7, 9, 7],"
                                   " \"num_beams\": 1, \"transformers_version\": \"4.0\"}");
    (void)state;
    assert_true(d.sampling.top_p == 0.5F && d.sampling.min_p == 0.125F);
    assert_true(d.sampling.repetition_penalty == 1.5F);
    assert_int_equal(d.sampling.top_k, 20);
    assert_int_equal(d.max_new_tokens, 64);
    assert_int_equal(d.n_eos_ids, 2);
    assert_int_equal(d.eos_ids[1], 9);
    assert_int_equal(parse("{\"eos_token_id\": 5}").eos_ids[0], 5);
}

static void what_breaks_a_limit_or_is_unsupported_is_refused_by_name(void **state)
{
    (void)state;
    refuse("{\"top_p\": 0}", "'top_p' is 0");
    refuse("{\"temperature\": -1, \"do_sample\": true}", "'temperature' is -1");
    refuse("{\"max_new_tokens\": 0}", "'max_new_tokens' is 0");
    refuse("{\"eos_token_id\": 1000}", "'eos_token_id' is no id below 1000");
    refuse("{\"eos_token_id\": [1, \"x\"]}", "'eos_token_id'");
    refuse("{\"num_beams\": 4}", "'num_beams'");
    refuse("{\"no_repeat_ngram_size\": true}", "'no_repeat_ngram_size'");
    refuse("[]", "not an object");
    refuse("{", "generation_config.json");
}

static void the_number_of_eos_ids_is_bounded(void **state)
{
    coord_defaults d = parse("");
    int32_t ids[GROUP_MAX_EOS_IDS + 1];
    (void)state;
    for (int32_t i = 0; i <= GROUP_MAX_EOS_IDS; i++) {
        ids[i] = i;
    }
    CHECK_STATUS(coord_defaults_add_eos(&d, ids, GROUP_MAX_EOS_IDS), BASE_OK);
    CHECK_STATUS(coord_defaults_add_eos(&d, ids, GROUP_MAX_EOS_IDS), BASE_OK); /* all there */
    CHECK_STATUS(coord_defaults_add_eos(&d, ids, GROUP_MAX_EOS_IDS + 1), BASE_BAD_FILE);
    assert_int_equal(d.n_eos_ids, GROUP_MAX_EOS_IDS);
}

static void a_request_overrides_only_what_it_gives(void **state)
{
    const coord_defaults d = parse("{\"do_sample\": true, \"temperature\": 0.25, \"top_p\": 0.5,"
                                   " \"top_k\": 20}");
    const inference_generate_request request = {
        .given = INFERENCE_GIVEN_TEMPERATURE | INFERENCE_GIVEN_TOP_K,
        .sampling = {.temperature = 0, .top_p = 1, .top_k = 0, .seed = 5}};
    const inference_sampling used = coord_defaults_apply(&d, &request);
    (void)state;
    assert_true(used.temperature == 0 && used.top_p == 0.5F);
    assert_int_equal(used.top_k, 0);
    assert_int_equal(used.seed, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_file_the_documented_defaults_hold),
        cmocka_unit_test(a_temperature_counts_only_with_do_sample),
        cmocka_unit_test(every_field_is_read),
        cmocka_unit_test(what_breaks_a_limit_or_is_unsupported_is_refused_by_name),
        cmocka_unit_test(the_number_of_eos_ids_is_bounded),
        cmocka_unit_test(a_request_overrides_only_what_it_gives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
