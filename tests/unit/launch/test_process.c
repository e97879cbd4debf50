#include "base/clock.h"
#include "launch/process.h"
#include "tests/support/test.h"

#include <unistd.h>

static bool ends_within(pid_t pid, int64_t ms, int *exit_out)
{
    const int64_t until = base_now_us() + ms * 1000;
    while (process_alive(pid, exit_out)) {
        if (base_now_us() > until) {
            return false;
        }
        base_sleep_us(2000);
    }
    return true;
}

static void a_program_that_is_not_there_is_named(void **state)
{
    static char name[] = "/nonexistent/program";
    char *argv[] = {name, NULL};
    pid_t pid = -1;
    (void)state;
    CHECK_STATUS(process_start(argv, "/dev/null", &pid), BASE_IO);
    CHECK_ERROR_NAMES("/nonexistent/program");
    assert_int_equal(pid, -1);
}

static void exit_status_is_seen_as_often_as_asked(void **state)
{
    static char name[] = "sh", c[] = "-c", script[] = "exit 7";
    char *argv[] = {name, c, script, NULL};
    pid_t pid = -1;
    int status = 0;
    (void)state;
    CHECK_STATUS(process_start(argv, "/dev/null", &pid), BASE_OK);
    assert_true(ends_within(pid, 5000, &status));
    assert_int_equal(status, 7);
    assert_false(process_alive(pid, &status));
    assert_int_equal(status, 7);
    process_end(pid, 0);
}

static void end_asks_then_insists(void **state)
{
    static char name[] = "sh", c[] = "-c";
    static char polite[] = "exec sleep 60";
    static char stubborn[] = "trap '' TERM; while :; do sleep 0.05; done";
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *argv[] = {name, c, i == 0 ? polite : stubborn, NULL};
        pid_t pid = -1;
        int status = 0;
        CHECK_STATUS(process_start(argv, "/dev/null", &pid), BASE_OK);
        base_sleep_us(100000); /* the trap is set by now */
        assert_true(process_alive(pid, &status));
        const int64_t started = base_now_us();
        process_end(pid, 300);
        const int64_t took_ms = (base_now_us() - started) / 1000;
        assert_true(i == 0 ? took_ms < 250 : took_ms >= 300);
        assert_false(process_alive(pid, &status));
    }
}

static void the_first_line_with_a_mark_is_told_from_a_byte_on(void **state)
{
    static char script[] = "echo 'x error a: old'; echo plain; echo 'y error a: first'; "
                           "echo 'z error a: second' >&2";
    static char name[] = "sh", c[] = "-c";
    char *argv[] = {name, c, script, NULL};
    char log[] = "/tmp/ropewalk-test-XXXXXX";
    char nowhere[] = "/nonexistent/file-XXXXXX";
    char said[32] = "untouched";
    char few[4];
    pid_t pid = -1;
    int status = 0;
    (void)state;
    CHECK_STATUS(process_make_file(nowhere), BASE_IO);
    CHECK_ERROR_NAMES("/nonexistent/file-");
    CHECK_STATUS(process_make_file(log), BASE_OK);
    CHECK_STATUS(process_start(argv, log, &pid), BASE_OK);
    assert_true(ends_within(pid, 5000, &status));
    process_said(log, 0, " error a: ", said, sizeof said);
    assert_string_equal(said, "old");
    process_said(log, 1, " error a: ", few, sizeof few); /* a line begun, and room for less */
    assert_string_equal(few, "old");
    process_said(log, 4, "error a: ", few, sizeof few);
    assert_string_equal(few, "fir");
    process_said(log, 0, " error b: ", said, sizeof said);
    assert_string_equal(said, "");
    process_said(NULL, 0, "", said, sizeof said);
    assert_string_equal(said, "");
    assert_int_equal(unlink(log), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_that_is_not_there_is_named),
        cmocka_unit_test(exit_status_is_seen_as_often_as_asked),
        cmocka_unit_test(end_asks_then_insists),
        cmocka_unit_test(the_first_line_with_a_mark_is_told_from_a_byte_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
