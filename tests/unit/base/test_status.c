#include "base/log.h"
#include "tests/support/test.h"

static void a_failure_keeps_code_place_and_text(void **state)
{
    (void)state;
    CHECK_STATUS(BASE_FAIL(BASE_BAD_INPUT, "field %d", 12), BASE_BAD_INPUT);
    assert_string_equal(base_last_error(), "field 12");
    assert_memory_equal(base_last_error_place(), "test_status.c:", 14);
}

static void long_texts_are_cut_not_lost(void **state)
{
    char text[2000];
    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    CHECK_STATUS(BASE_FAIL(BASE_IO, "%s", text), BASE_IO);
    assert_true(strlen(base_last_error()) > 300 && strlen(base_last_error()) < 1024);
}

static void scopes_say_how_far_the_damage_reaches(void **state)
{
    (void)state;
    assert_int_equal(base_status_scope(BASE_OK), BASE_SCOPE_NONE);
    assert_int_equal(base_status_scope(BASE_BAD_INPUT), BASE_SCOPE_REQUEST);
    assert_int_equal(base_status_scope(BASE_NO_MEMORY), BASE_SCOPE_RANK);
    assert_int_equal(base_status_scope(BASE_PEER_LOST), BASE_SCOPE_WORLD);
}

static void log_levels_are_read_by_name(void **state)
{
    base_log_level level = BASE_LOG_ERROR;
    (void)state;
    CHECK_STATUS(base_log_level_parse("debug", &level), BASE_OK);
    assert_int_equal(level, BASE_LOG_DEBUG);
    CHECK_STATUS(base_log_level_parse("loud", &level), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("loud");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_keeps_code_place_and_text),
        cmocka_unit_test(long_texts_are_cut_not_lost),
        cmocka_unit_test(scopes_say_how_far_the_damage_reaches),
        cmocka_unit_test(log_levels_are_read_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
