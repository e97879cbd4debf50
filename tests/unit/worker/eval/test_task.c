#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "worker/eval/task.h"

#include <stdio.h>

static const char good[] =
    "{\"prompt\": \"2 + 2 =\", \"answers\": [\"4\", \"four\"], \"scorer\": \"exact\"}\n"
    "\n"
    "{\"prompt\": \"Say hello\", \"answers\": [\"hello\"], \"scorer\": \"f1\", "
    "\"max_new_tokens\": 5}";

static void lines_become_items(void **state)
{
    (void)state;
    eval_task *task = NULL;
    CHECK_STATUS(eval_task_parse(base_view_of(good), "t", &base_heap, &task), BASE_OK);
    assert_int_equal(task->n_items, 2);
    const eval_task_item *a = &task->items[0];
    const eval_task_item *b = &task->items[1];
    assert_true(base_view_equal(a->prompt, base_view_of("2 + 2 =")));
    assert_int_equal(a->n_answers, 2);
    assert_true(base_view_equal(a->answers[1], base_view_of("four")));
    assert_int_equal(a->scorer, EVAL_SCORER_EXACT);
    assert_int_equal(a->max_new_tokens, 32);
    assert_int_equal(a->line, 1);
    assert_int_equal(b->scorer, EVAL_SCORER_F1);
    assert_int_equal(b->max_new_tokens, 5);
    assert_int_equal(b->line, 3);
    eval_task_destroy(task);
}

static void a_bad_line_is_named_by_number_and_field(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        const char *field;
    } cases[] = {
        {"{\"answers\": [\"4\"], \"scorer\": \"exact\"}", "prompt"},
        {"{\"prompt\": 3, \"answers\": [\"4\"], \"scorer\": \"exact\"}", "prompt"},
        {"{\"prompt\": \"a\", \"scorer\": \"exact\"}", "answers"},
        {"{\"prompt\": \"a\", \"answers\": [], \"scorer\": \"exact\"}", "answers"},
        {"{\"prompt\": \"a\", \"answers\": \"4\", \"scorer\": \"exact\"}", "answers"},
        {"{\"prompt\": \"a\", \"answers\": [\"4\", 5], \"scorer\": \"exact\"}", "entry 1"},
        {"{\"prompt\": \"a\", \"answers\": [\"\"], \"scorer\": \"exact\"}", "entry 0"},
        {"{\"prompt\": \"a\", \"answers\": [\"4\"]}", "scorer"},
        {"{\"prompt\": \"a\", \"answers\": [\"4\"], \"scorer\": \"bleu\"}", "bleu"},
        {"{\"prompt\": \"a\", \"answers\": [\"4\"], \"scorer\": \"f1\", \"max_new_tokens\": 0}",
         "max_new_tokens"},
        {"{\"prompt\": \"a\", \"answers\": [\"4\"], \"scorer\": \"f1\", \"max_tokens\": 9}",
         "max_tokens"},
        {"{\"prompt\": ", "line 2"},
        {"7", "prompt"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        eval_task *task = NULL;
        (void)snprintf(text, sizeof text, "%.*s\n%s\n", (int)strcspn(good, "\n"), good,
                       cases[i].line);
        CHECK_STATUS(eval_task_parse(base_view_of(text), "own.jsonl", &base_heap, &task),
                     BASE_BAD_FILE);
        CHECK_ERROR_NAMES("own.jsonl line 2");
        CHECK_ERROR_NAMES(cases[i].field);
        assert_null(task);
    }
}

static void a_file_without_lines_is_refused(void **state)
{
    (void)state;
    eval_task *task = NULL;
    CHECK_STATUS(eval_task_parse(base_view_of(" \n\n"), "own.jsonl", &base_heap, &task),
                 BASE_BAD_FILE);
    CHECK_ERROR_NAMES("no lines");
    assert_null(task);
}

static void every_failed_allocation_leaves_nothing(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc a = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &a};
        eval_task *task = NULL;
        const base_status st = eval_task_parse(base_view_of(good), "t", &mem, &task);
        if (st == BASE_OK) {
            assert_int_equal(k, 4);
            eval_task_destroy(task);
            assert_int_equal(a.n_live, 0);
            break;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_null(task);
        assert_int_equal(a.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_become_items),
        cmocka_unit_test(a_bad_line_is_named_by_number_and_field),
        cmocka_unit_test(a_file_without_lines_is_refused),
        cmocka_unit_test(every_failed_allocation_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
