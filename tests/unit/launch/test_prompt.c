#include "launch/prompt.h"
#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

static void ids_are_read_from_an_array(void **state)
{
    prompt p = {.has_text = true};
    (void)state;
    CHECK_STATUS(prompt_read(NULL, NULL, "[0, 5, 2147483647]", &base_heap, &p), BASE_OK);
    assert_false(p.has_text);
    assert_int_equal(p.n_ids, 3);
    assert_int_equal(p.ids[2], INT32_MAX);
    prompt_reset(&p);
}

static void text_is_taken_as_it_is(void **state)
{
    prompt p = {.has_text = false};
    (void)state;
    CHECK_STATUS(prompt_read("caf\xc3\xa9", NULL, NULL, &base_heap, &p), BASE_OK);
    assert_true(p.has_text);
    assert_int_equal(p.text.n_bytes, 5);
    prompt_reset(&p);
}

static void bad_arguments_are_named(void **state)
{
    static const struct {
        const char *text, *file, *ids, *names;
    } bad[] = {
        {NULL, NULL, NULL, "none of --prompt"},
        {"a", NULL, "[1]", "several of --prompt"},
        {NULL, NULL, "[]", "--prompt-ids"},
        {NULL, NULL, "{}", "--prompt-ids"},
        {NULL, NULL, "[1, -1]", "entry 1"},
        {NULL, NULL, "[2147483648]", "entry 0"},
        {NULL, NULL, "[1.5]", "entry 0"},
        {NULL, NULL, "@/nonexistent", "/nonexistent"},
        {NULL, "/nonexistent", NULL, "/nonexistent"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        prompt p = {.n_ids = 77};
        assert_int_not_equal(prompt_read(bad[i].text, bad[i].file, bad[i].ids, &base_heap, &p),
                             BASE_OK);
        CHECK_ERROR_NAMES(bad[i].names);
        assert_int_equal(p.n_ids, 77);
    }
}

static void survives_every_failed_allocation(void **state)
{
    (void)state;
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        prompt p = {.has_text = false};
        const base_status st = prompt_read(NULL, NULL, "[1]", &mem, &p);
        if (st == BASE_OK) {
            assert_true(k > 0);
            prompt_reset(&p);
            assert_int_equal(f.n_live, 0);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_int_equal(f.n_live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_read_from_an_array),
        cmocka_unit_test(text_is_taken_as_it_is),
        cmocka_unit_test(bad_arguments_are_named),
        cmocka_unit_test(survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
