#include "tests/support/test.h"
#include "worker/model/config.h"

#include <stdio.h>

#define HEAD                                                                                 \
    "\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":256," \
    "\"num_hidden_layers\":6,\"intermediate_size\":768,\"vocab_size\":4096,"                 \
    "\"max_position_embeddings\":131072"
#define HEADS "\"num_attention_heads\":4"
#define GOOD  HEAD "," HEADS

static base_status parse(const char *text, model_config *c)
{
    const base_view none = {NULL, 0};
    return model_config_parse(base_view_of(text), none, none, c);
}

static base_status parse_both(const char *text, const char *generation, model_config *c)
{
    const base_view none = {NULL, 0};
    return model_config_parse(base_view_of(text), base_view_of(generation), none, c);
}

/* Each case is refused with a text that holds both names. */
static void check_refused(const char *text, const char *field, const char *limit)
{
    model_config c;
    memset(&c, 0x5a, sizeof c);
    const model_config before = c;
    CHECK_STATUS(parse(text, &c), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("config.json");
    CHECK_ERROR_NAMES(field);
    CHECK_ERROR_NAMES(limit);
    assert_memory_equal(&c, &before, sizeof c);
}

static void absent_fields_take_the_defaults_of_transformers(void **state)
{
    (void)state;
    model_config c;
    CHECK_STATUS(parse("{" GOOD "}", &c), BASE_OK);
    assert_int_equal(c.arch, MODEL_ARCH_LLAMA);
    assert_int_equal(c.n_layers, 6);
    assert_int_equal(c.width, 256);
    assert_int_equal(c.n_heads, 4);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.head_dim, 64);
    assert_int_equal(c.ffn_width, 768);
    assert_int_equal(c.n_vocab, 4096);
    assert_int_equal(c.max_context, 131072);
    assert_true(c.rms_eps == 1e-6f);
    assert_true(c.rope_theta == 10000.0);
    assert_false(c.tied_embeddings);
    assert_int_equal(c.n_eos_ids, 0);
}

static void given_fields_are_honoured(void **state)
{
    (void)state;
    model_config c;
    CHECK_STATUS(parse("{" GOOD ",\"num_key_value_heads\":2,\"head_dim\":128,\"rms_norm_eps\":1e-5,"
                       "\"rope_theta\":5e5,\"tie_word_embeddings\":true,\"eos_token_id\":7,"
                       "\"hidden_act\":\"silu\",\"rope_scaling\":null,\"attention_bias\":false,"
                       "\"sliding_window\":null,\"layer_types\":[\"full_attention\"]}",
                       &c),
                 BASE_OK);
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.head_dim, 128);
    assert_true(c.rms_eps == 1e-5f);
    assert_true(c.rope_theta == 5e5);
    assert_true(c.tied_embeddings);
    assert_int_equal(c.n_eos_ids, 1);
    assert_int_equal(c.eos_ids[0], 7);
}

static void rope_parameters_of_transformers_5_are_read(void **state)
{
    (void)state;
    model_config c;
    CHECK_STATUS(parse("{" GOOD ",\"rope_parameters\":{\"rope_type\":\"default\","
                       "\"rope_theta\":1000000.0}}",
                       &c),
                 BASE_OK);
    assert_true(c.rope_theta == 1e6);
    CHECK_STATUS(parse("{" GOOD ",\"rope_scaling\":{\"type\":\"default\"}}", &c), BASE_OK);
    assert_true(c.rope_theta == 10000.0);
    check_refused("{" GOOD ",\"rope_theta\":1e4,\"rope_parameters\":{\"rope_type\":\"default\","
                  "\"rope_theta\":2e4}}",
                  "rope_theta", "20000");
    check_refused("{" GOOD ",\"rope_parameters\":{\"rope_type\":\"default\","
                  "\"partial_rotary_factor\":0.5}}",
                  "partial_rotary_factor", "0.5");
}

static void end_of_sequence_ids_come_from_the_generation_config_if_it_has_them(void **state)
{
    (void)state;
    model_config c;
    CHECK_STATUS(parse_both("{" GOOD ",\"eos_token_id\":[1,2]}", "{\"eos_token_id\":[5,6,9]}", &c),
                 BASE_OK);
    assert_int_equal(c.n_eos_ids, 3);
    assert_int_equal(c.eos_ids[0], 5);
    assert_int_equal(c.eos_ids[2], 9);
    CHECK_STATUS(parse_both("{" GOOD ",\"eos_token_id\":[1,2]}", "{\"top_p\":0.9}", &c), BASE_OK);
    assert_int_equal(c.n_eos_ids, 2);
    assert_int_equal(c.eos_ids[1], 2);
    CHECK_STATUS(parse_both("{" GOOD "}", "{\"eos_token_id\":4096}", &c), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("generation_config.json");
    CHECK_ERROR_NAMES("0..4095");
    CHECK_STATUS(parse_both("{" GOOD "}", "[]", &c), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("generation_config.json");
}

static void what_changes_results_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *field;
        const char *limit;
    } cases[] = {
        {"{" GOOD ",\"attention_bias\":true}", "attention_bias", "true"},
        {"{" GOOD ",\"mlp_bias\":true}", "mlp_bias", "true"},
        {"{" GOOD ",\"sliding_window\":4096}", "sliding_window", "4096"},
        {"{" GOOD ",\"use_sliding_window\":true}", "use_sliding_window", "true"},
        {"{" GOOD ",\"quantization_config\":{\"bits\":4}}", "quantization_config", "{\"bits\":4}"},
        {"{" GOOD ",\"num_local_experts\":8}", "num_local_experts", "8"},
        {"{" GOOD ",\"logits_scaling\":8.0}", "logits_scaling", "supported: 1"},
        {"{" GOOD ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", "rope_scaling",
         "low_freq_factor"},
        {"{" GOOD ",\"rope_scaling\":{\"factor\":8}}", "rope_scaling", "rope_type"},
        {"{" GOOD ",\"rope_parameters\":{\"rope_type\":\"yarn\"}}", "rope_parameters", "factor"},
        {"{" GOOD ",\"hidden_act\":\"gelu\"}", "hidden_act", "silu"},
        {"{" GOOD ",\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", "layer_types",
         "sliding_attention"},
        {"{" GOOD ",\"head_dim\":96}", "head_dim", "64, 128"},
        {"{" GOOD ",\"num_key_value_heads\":3}", "num_key_value_heads", "1..16"},
        {"{" HEAD ",\"num_attention_heads\":34,\"num_key_value_heads\":2,\"head_dim\":64}",
         "num_key_value_heads", "1..16"},
        {"{" HEAD ",\"num_attention_heads\":0}", "num_attention_heads", "1..1024"},
        {"{" HEAD "}", "num_attention_heads", "missing"},
        {"{" GOOD ",\"rms_norm_eps\":0}", "rms_norm_eps", "0.1"},
        {"{" GOOD ",\"rope_theta\":0.5}", "rope_theta", "0.5"},
        {"{" GOOD ",\"eos_token_id\":-1}", "eos_token_id", "0..4095"},
        {"{" GOOD ",\"eos_token_id\":[1,\"2\"]}", "eos_token_id", "\"2\""},
        {"{" GOOD ",\"tie_word_embeddings\":1}", "tie_word_embeddings", "true or false"},
        {"{\"architectures\":[\"OPTForCausalLM\"],\"model_type\":\"opt\"}", "OPTForCausalLM",
         "LlamaForCausalLM"},
        {"{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"mistral\"}", "model_type",
         "mistral"},
        {"{\"architectures\":[],\"model_type\":\"llama\"}", "architectures", "one class name"},
        {"{\"architectures\":[\"LlamaForCausalLM\"]}", "model_type", "missing"},
        {"[]", "JSON object", ""},
        {"{" GOOD, "line", ""},
        {"", "line", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_refused(cases[i].text, cases[i].field, cases[i].limit);
    }
}

static void a_list_of_too_many_end_ids_is_refused(void **state)
{
    (void)state;
    for (int32_t n = MODEL_MAX_EOS_IDS; n <= MODEL_MAX_EOS_IDS + 1; n++) {
        char text[1024];
        size_t at = (size_t)snprintf(text, sizeof text, "{%s,\"eos_token_id\":[0", GOOD);
        for (int32_t i = 1; i < n; i++) {
            at += (size_t)snprintf(text + at, sizeof text - at, ",%d", i);
        }
        snprintf(text + at, sizeof text - at, "]}");
        model_config c;
        if (n <= MODEL_MAX_EOS_IDS) {
            CHECK_STATUS(parse(text, &c), BASE_OK);
            assert_int_equal(c.n_eos_ids, n);
        } else {
            check_refused(text, "eos_token_id", "limit 64");
        }
    }
}

#define SIZES                                                                                    \
    "\"hidden_size\":256,\"num_hidden_layers\":6,\"intermediate_size\":768,\"vocab_size\":4096," \
    "\"max_position_embeddings\":32768,\"num_attention_heads\":4,\"num_key_value_heads\":2"
#define QWEN2   "\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\"," SIZES
#define QWEN3   "\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen3\"," SIZES
#define MISTRAL "\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\"," SIZES

static void every_architecture_is_read_with_its_own_defaults(void **state)
{
    (void)state;
    model_config c;
    CHECK_STATUS(parse("{" QWEN2 ",\"use_sliding_window\":false,\"sliding_window\":4096,"
                       "\"max_window_layers\":28}",
                       &c),
                 BASE_OK);
    assert_int_equal(c.arch, MODEL_ARCH_QWEN2);
    assert_int_equal(c.head_dim, 64);
    CHECK_STATUS(parse("{" QWEN3 "}", &c), BASE_OK);
    assert_int_equal(c.arch, MODEL_ARCH_QWEN3);
    assert_int_equal(c.head_dim, 128);
    CHECK_STATUS(parse("{" MISTRAL ",\"sliding_window\":null}", &c), BASE_OK);
    assert_int_equal(c.arch, MODEL_ARCH_MISTRAL);
    CHECK_STATUS(parse("{" MISTRAL ",\"sliding_window\":32768}", &c), BASE_OK);
    check_refused("{" MISTRAL ",\"sliding_window\":32767}", "sliding_window", "32768");
    check_refused("{" MISTRAL "}", "sliding_window", "4096 when absent");
    check_refused("{" QWEN2 ",\"use_sliding_window\":true}", "use_sliding_window", "true");
    check_refused("{" QWEN3 ",\"attention_bias\":true}", "attention_bias", "true");
    check_refused("{\"architectures\":[\"Qwen3ForCausalLM\"],\"model_type\":\"qwen2\"," SIZES "}",
                  "model_type", "qwen3");
    check_refused("{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\"," //
                  "\"hidden_size\":256,\"num_hidden_layers\":6,\"intermediate_size\":768,"
                  "\"vocab_size\":4096,\"max_position_embeddings\":32768,"
                  "\"num_attention_heads\":4}",
                  "num_key_value_heads", "missing");
}

static void rope_scaling_is_read_in_both_spellings(void **state)
{
    (void)state;
    model_config c;
    CHECK_STATUS(parse("{" GOOD ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}", &c),
                 BASE_OK);
    assert_int_equal(c.rope.kind, ROPE_LINEAR);
    assert_true(c.rope.factor == 2.5);
    assert_int_equal(c.max_context, 131072);
    CHECK_STATUS(parse("{" GOOD ",\"rope_theta\":5e5,\"rope_scaling\":{\"rope_type\":\"llama3\","
                       "\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                       "\"original_max_position_embeddings\":8192}}",
                       &c),
                 BASE_OK);
    assert_int_equal(c.rope.kind, ROPE_LLAMA3);
    assert_true(c.rope.original_context == 8192.0 && c.rope.high_freq_factor == 4.0);
    assert_true(c.rope_theta == 5e5);
    CHECK_STATUS(parse("{" GOOD ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":1e6,"
                       "\"factor\":16,\"original_max_position_embeddings\":16384,"
                       "\"truncate\":false}}",
                       &c),
                 BASE_OK);
    assert_int_equal(c.rope.kind, ROPE_YARN);
    assert_true(c.rope.beta_fast == 32.0 && c.rope.beta_slow == 1.0 && !c.rope.truncate);
    assert_true(c.rope_theta == 1e6);
    assert_int_equal(c.max_context, 16 * 16384); /* further than max_position_embeddings */
}

static void rope_fields_that_would_change_results_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *rope;
        const char *field;
        const char *limit;
    } cases[] = {
        {"{\"rope_type\":\"dynamic\",\"factor\":2}", "rope_type", "dynamic"},
        {"{\"rope_type\":\"longrope\",\"factor\":2}", "rope_type", "longrope"},
        {"{\"rope_type\":\"linear\"}", "factor", "missing"},
        {"{\"rope_type\":\"linear\",\"factor\":0.5}", "factor", "0.5"},
        {"{\"rope_type\":\"linear\",\"factor\":2,\"beta_fast\":3}", "beta_fast", "linear"},
        {"{\"rope_type\":\"yarn\",\"factor\":2,\"long_factor\":[1]}", "long_factor", "yarn"},
        {"{\"rope_type\":\"yarn\",\"factor\":2,\"beta_fast\":1,\"beta_slow\":2}", "beta_fast",
         "beta_slow"},
        {"{\"rope_type\":\"yarn\",\"factor\":2,\"attention_factor\":0}", "attention_factor", ""},
        {"{\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":1}", "truncate", "true or false"},
        {"{\"rope_type\":\"llama3\",\"factor\":2,\"low_freq_factor\":4,\"high_freq_factor\":4}",
         "high_freq_factor", "low_freq_factor"},
        {"[]", "rope_scaling", "JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        snprintf(text, sizeof text, "{%s,\"rope_scaling\":%s}", GOOD, cases[i].rope);
        check_refused(text, cases[i].field, cases[i].limit);
    }
    check_refused("{" GOOD ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},"
                  "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4}}",
                  "rope_scaling", "disagree");
}

static void the_option_replaces_the_scaling_and_extends_the_context(void **state)
{
    (void)state;
    static const char yarn[] = "{" QWEN2 ",\"rope_theta\":1e6,\"rope_scaling\":{\"type\":\"yarn\","
                               "\"factor\":4,\"original_max_position_embeddings\":8192}}";
    const base_view none = {NULL, 0};
    model_config c;
    CHECK_STATUS(model_config_parse(base_view_of(yarn), none, base_view_of("none"), &c), BASE_OK);
    assert_int_equal(c.rope.kind, ROPE_DEFAULT);
    assert_true(c.rope_theta == 1e6);
    CHECK_STATUS(model_config_parse(base_view_of(yarn), none,
                                    base_view_of("{\"type\":\"linear\",\"factor\":4}"), &c),
                 BASE_OK);
    assert_int_equal(c.rope.kind, ROPE_LINEAR);
    assert_int_equal(c.max_context, 131072);
    assert_true(c.rope.attention_factor == 0.0);
    CHECK_STATUS(
        model_config_parse(base_view_of(yarn), none, base_view_of("{\"type\":\"ntk\"}"), &c),
        BASE_BAD_FILE);
    CHECK_ERROR_NAMES("--rope-scaling");
    CHECK_ERROR_NAMES("ntk");
    CHECK_STATUS(model_config_parse(base_view_of(yarn), none, base_view_of("off"), &c),
                 BASE_BAD_FILE);
    CHECK_ERROR_NAMES("--rope-scaling");
    static const char window[] = "{" MISTRAL ",\"sliding_window\":32768}";
    CHECK_STATUS(model_config_parse(base_view_of(window), none,
                                    base_view_of("{\"type\":\"linear\",\"factor\":4}"), &c),
                 BASE_BAD_FILE); /* what fitted the window no longer does */
    CHECK_ERROR_NAMES("sliding_window");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_fields_take_the_defaults_of_transformers),
        cmocka_unit_test(given_fields_are_honoured),
        cmocka_unit_test(rope_parameters_of_transformers_5_are_read),
        cmocka_unit_test(end_of_sequence_ids_come_from_the_generation_config_if_it_has_them),
        cmocka_unit_test(what_changes_results_is_refused_by_name),
        cmocka_unit_test(a_list_of_too_many_end_ids_is_refused),
        cmocka_unit_test(every_architecture_is_read_with_its_own_defaults),
        cmocka_unit_test(rope_scaling_is_read_in_both_spellings),
        cmocka_unit_test(rope_fields_that_would_change_results_are_refused_by_name),
        cmocka_unit_test(the_option_replaces_the_scaling_and_extends_the_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
