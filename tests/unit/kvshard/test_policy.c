#include "kvshard/policy.h"

#include "tests/support/test.h"

static void text_means_a_policy(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        kv_policy_kind kind;
        int32_t k_bits;
        int32_t v_bits;
        const char *canonical;
    } rows[] = {
        {"bf16", KV_POLICY_BF16, 16, 16, "bf16"},
        {"tq", KV_POLICY_TQ, 4, 4, "tq:k=4,v=4"},
        {"tq:k=3", KV_POLICY_TQ, 3, 4, "tq:k=3,v=4"},
        {"tq:v=2", KV_POLICY_TQ, 4, 2, "tq:k=4,v=2"},
        {"tq:k=2,v=8", KV_POLICY_TQ, 2, 8, "tq:k=2,v=8"},
        {"tq:v=16,k=3", KV_POLICY_TQ, 3, 16, "tq:k=3,v=16"},
        {"tq:k=16,v=16", KV_POLICY_TQ, 16, 16, "tq:k=16,v=16"},
        {"block-gtq", KV_POLICY_BLOCK_GTQ, 3, 3, "block-gtq:k=3,v=3"},
        {"kivi", KV_POLICY_KIVI, 2, 2, "kivi:k=2,v=2,g=32,w=128,s=0"},
        {"kivi:w=1024,s=128,g=128,v=8,k=16", KV_POLICY_KIVI, 16, 8,
         "kivi:k=16,v=8,g=128,w=1024,s=128"},
        {"kivi:w=0,g=64,k=4", KV_POLICY_KIVI, 4, 2, "kivi:k=4,v=2,g=64,w=0,s=0"},
        {"block-gtq:v=16,calib=a/b.cal,k=1", KV_POLICY_BLOCK_GTQ, 1, 16, "block-gtq:k=1,v=16"},
        {"block-gtq:paper", KV_POLICY_BLOCK_GTQ, 3, 3, "block-gtq:k=3,v=3,paper=1"},
        {"block-gtq:paper=1,k=2", KV_POLICY_BLOCK_GTQ, 2, 3, "block-gtq:k=2,v=3,paper=1"},
        {"block-gtq:paper=0", KV_POLICY_BLOCK_GTQ, 3, 3, "block-gtq:k=3,v=3"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kv_policy policy = {0};
        kv_policy again = {0};
        char text[KV_MAX_POLICY_TEXT];
        CHECK_STATUS(kv_policy_parse(rows[i].text, &policy), BASE_OK);
        assert_int_equal(policy.kind, rows[i].kind);
        assert_int_equal(policy.k_bits, rows[i].k_bits);
        assert_int_equal(policy.v_bits, rows[i].v_bits);
        kv_policy_text(&policy, text);
        assert_string_equal(text, rows[i].canonical);
        CHECK_STATUS(kv_policy_parse(text, &again), BASE_OK);
        assert_memory_equal(&again, &policy, sizeof policy);
    }
}

static void what_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *error;
    } rows[] = {
        {"", "policy '' is unknown; known are bf16, tq"},
        {"kitty", "policy 'kitty' is unknown; known are bf16, tq, block-gtq, kivi"},
        {"qaq", "policy 'qaq' is unknown; known are bf16, tq"},
        {"TQ", "policy 'TQ' is unknown"},
        {"tq ", "policy 'tq ' is unknown"},
        {"tq,k=3", "policy 'tq,k=3' is unknown"},
        {"tq:k=9", "policy tq: k is 9, allowed 2..8 or 16"},
        {"tq:k=1", "policy tq: k is 1, allowed 2..8 or 16"},
        {"tq:v=15", "policy tq: v is 15, allowed 2..8 or 16"},
        {"tq:v=17", "policy tq: v is 17, allowed 2..8 or 16"},
        {"tq:k=-3", "policy tq: k is -3, allowed"},
        {"tq:k=+3", "policy tq: k is +3, allowed"},
        {"tq:k= 3", "policy tq: k is  3, allowed"},
        {"tq:k=3x", "policy tq: k is 3x, allowed"},
        {"tq:k=4294967299", "policy tq: k is 4294967299, allowed"},
        {"tq:k=", "policy tq: k is , allowed"},
        {"tq:k", "policy tq: k is , allowed"},
        {"tq:g=32", "policy tq: key 'g' is unknown; known are k, v"},
        {"tq:", "policy tq: key '' is unknown"},
        {"tq:k=3,", "policy tq: key '' is unknown"},
        {"tq:=3", "policy tq: key '' is unknown"},
        {"tq:k=3,k=3", "policy tq: k is given twice"},
        {"block-gtq:k=9", "policy block-gtq: k is 9, allowed 1..8"},
        {"block-gtq:k=0", "policy block-gtq: k is 0, allowed 1..8"},
        {"block-gtq:calib=", "policy block-gtq: calib names no file"},
        {"block-gtq:calib=a,calib=a", "policy block-gtq: calib is given twice"},
        {"block-gtq:paper=2", "policy block-gtq: paper is 2, allowed 0..1"},
        {"block-gtq:paper=", "policy block-gtq: paper is , allowed 0..1"},
        {"block-gtq:paper,paper", "policy block-gtq: paper is given twice"},
        {"block-gtq:k", "policy block-gtq: k is , allowed 1..8"},
        {"tq:paper", "policy tq: key 'paper' is unknown; known are k, v"},
        {"tq:calib=a", "policy tq: key 'calib' is unknown; known are k, v"},
        {"kivi:k=3", "policy kivi: k is 3, allowed 2, 4, 8, 16"},
        {"kivi:v=1", "policy kivi: v is 1, allowed 2, 4, 8, 16"},
        {"kivi:g=16", "policy kivi: g is 16, allowed 32, 64, 128"},
        {"kivi:w=64", "policy kivi: w is 64, allowed 0, 128, 256, 384, 512, 640, 768, 896, 1024"},
        {"kivi:w=1152", "policy kivi: w is 1152, allowed"},
        {"kivi:s=32", "policy kivi: s is 32, allowed 0, 128"},
        {"kivi:s=", "policy kivi: s is , allowed 0, 128"},
        {"kivi:r=128", "policy kivi: key 'r' is unknown; known are k, v, g, w, s"},
        {"bf16:k=16", "policy bf16: key 'k' is unknown; known are none"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        kv_policy policy = {.kind = KV_POLICY_TQ, .k_bits = 77, .v_bits = 78};
        CHECK_STATUS(kv_policy_parse(rows[i].text, &policy), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(rows[i].error);
        assert_int_equal(policy.k_bits, 77);
        assert_int_equal(policy.v_bits, 78);
    }
}

static void the_calibration_file_is_found_in_the_text(void **state)
{
    (void)state;
    assert_true(base_view_equal(kv_policy_calib("block-gtq:k=2,calib=a=b.cal,v=3"),
                                base_view_of("a=b.cal")));
    assert_null(kv_policy_calib("block-gtq:k=2,v=3").data);
    assert_null(kv_policy_calib("block-gtq").data);
}

static void a_long_name_does_not_push_the_reason_out_of_the_error(void **state)
{
    (void)state;
    char text[2001];
    kv_policy policy;
    memset(text, 'x', 2000);
    text[2000] = '\0';
    CHECK_STATUS(kv_policy_parse(text, &policy), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("is unknown; known are bf16, tq");
    memcpy(text, "tq:k=", 5);
    CHECK_STATUS(kv_policy_parse(text, &policy), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("allowed 2..8 or 16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_means_a_policy),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(the_calibration_file_is_found_in_the_text),
        cmocka_unit_test(a_long_name_does_not_push_the_reason_out_of_the_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
