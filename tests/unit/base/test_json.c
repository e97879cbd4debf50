#include "base/json.h"
#include "tests/support/test.h"

static void reads_fields_within_limits(void **state)
{
    json_t *root = NULL;
    int64_t n = 7;
    double x = 7.0;
    bool b = false;
    base_view text = {NULL, 0};
    (void)state;
    CHECK_STATUS(
        base_json_parse(base_view_of("{\"n\": 3, \"x\": 0.5, \"b\": true, \"s\": \"a\\u0000b\","
                                     " \"z\": null}"),
                        "t", &root),
        BASE_OK);
    CHECK_STATUS(base_json_get_int(root, "t", "n", true, 1, 3, &n), BASE_OK);
    CHECK_STATUS(base_json_get_real(root, "t", "x", true, 0.0, 1.0, &x), BASE_OK);
    CHECK_STATUS(base_json_get_bool(root, "t", "b", true, &b), BASE_OK);
    CHECK_STATUS(base_json_get_text(root, "t", "s", true, &text), BASE_OK);
    assert_int_equal(n, 3);
    assert_true(x > 0.49 && x < 0.51 && b);
    assert_int_equal(text.n_bytes, 3);
    CHECK_STATUS(base_json_get_int(root, "t", "z", false, 0, 9, &n), BASE_OK);
    CHECK_STATUS(base_json_get_int(root, "t", "absent", false, 0, 9, &n), BASE_OK);
    assert_int_equal(n, 3); /* optional and not there: left alone */
    base_json_free(root);
}

static void errors_name_file_field_value_and_limit(void **state)
{
    json_t *root = NULL;
    int64_t n = 0;
    base_view text = {NULL, 0};
    (void)state;
    CHECK_STATUS(base_json_parse(base_view_of("{\"n\": 12}"), "config.json", &root), BASE_OK);
    CHECK_STATUS(base_json_get_int(root, "config.json", "n", true, 1, 8, &n), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("config.json: field 'n' is 12, allowed 1..8");
    CHECK_STATUS(base_json_get_int(root, "config.json", "m", true, 1, 8, &n), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("field 'm' is missing");
    CHECK_STATUS(base_json_get_text(root, "config.json", "n", true, &text), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("field 'n' is not a string");
    base_json_free(root);
}

static void refuses_what_is_not_json(void **state)
{
    static const char *const bad[] = {"", "{", "{\"a\":1,\"a\":2}", "[1] x", "nul", "\"\xff\""};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *root = NULL;
        CHECK_STATUS(base_json_parse(base_view_of(bad[i]), "t", &root), BASE_BAD_FILE);
        assert_null(root);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_fields_within_limits),
        cmocka_unit_test(errors_name_file_field_value_and_limit),
        cmocka_unit_test(refuses_what_is_not_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
