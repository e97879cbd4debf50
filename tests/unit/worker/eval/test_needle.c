#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"
#include "worker/eval/needle.h"

#include <stdio.h>

static const char haystack[] = "The sun rose. \"Who is there?\" asked Tom. Mr. Bell came in! It "
                               "rained at 3.15 that day.\nThey left";

/* A token is a word. */
static base_status count_words(void *ctx, base_view text, int32_t *n_out)
{
    int32_t n = 0;
    (void)ctx;
    for (size_t i = 0; i < text.n_bytes; i++) {
        n += text.data[i] > ' ' && (i == 0 || text.data[i - 1] <= ' ');
    }
    *n_out = n;
    return BASE_OK;
}

static eval_needle make(double depth, int32_t n_keys, uint64_t stream)
{
    const eval_needle_options o = {.haystack = base_view_of(haystack),
                                   .n_tokens = 400,
                                   .depth = depth,
                                   .n_keys = n_keys,
                                   .seed = 7,
                                   .stream = stream};
    eval_needle needle;
    CHECK_STATUS(eval_needle_make(&o, count_words, NULL, &base_heap, &needle), BASE_OK);
    return needle;
}

/* Where the sentence with the asked number begins, as a share of the text before the question. */
static double place_of(const eval_needle *needle, const char *number)
{
    char fact[64];
    (void)snprintf(fact, sizeof fact, " is %s.", number);
    const char *at = strstr(needle->prompt.data, fact);
    const char *question = strstr(needle->prompt.data, "\nQuestion: ");
    assert_non_null(at);
    assert_non_null(question);
    const char *begin = at;
    while (begin > needle->prompt.data && strncmp(begin, "The secret number for ", 22) != 0) {
        begin--;
    }
    return (double)(begin - needle->prompt.data) / (double)(question - needle->prompt.data);
}

static void a_prompt_has_the_form_that_the_model_was_trained_on(void **state)
{
    (void)state;
    eval_needle needle = make(0.5, 1, 0);
    char name[64];
    char want[256];
    const char *fact = strstr(needle.prompt.data, "The secret number for ");
    assert_non_null(fact);
    assert_int_equal(sscanf(fact, "The secret number for %63[a-z ]", name), 1);
    name[strlen(name) - 4] = '\0'; /* " is " */
    (void)snprintf(want, sizeof want,
                   "\nQuestion: What is the secret number for %s?\nAnswer:", name);
    const char *end = needle.prompt.data + needle.prompt.n_bytes - strlen(want);
    assert_string_equal(end, want);
    assert_in_range(strlen(needle.number), 5, 7);
    assert_null(strstr(fact + 1, "The secret number"));
    eval_needle_reset(&needle);
}

static void the_prompt_is_nearly_as_long_as_asked_and_never_longer(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 20; i++) {
        eval_needle needle = make(0.3, 4, i);
        int32_t n = 0;
        CHECK_STATUS(count_words(NULL, base_bytes_view(&needle.prompt), &n), BASE_OK);
        assert_in_range(n + 1, 385, 400); /* the answer is a word */
        eval_needle_reset(&needle);
    }
}

static void the_number_stands_where_the_depth_says(void **state)
{
    (void)state;
    static const double depths[] = {0.0, 0.25, 0.5, 0.75, 1.0};
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
        for (int32_t n_keys = 1; n_keys <= 8; n_keys += 7) {
            eval_needle needle = make(depths[i], n_keys, i);
            const double place = place_of(&needle, needle.number);
            if (depths[i] == 0.0 && n_keys == 1) {
                assert_true(place == 0.0);
            }
            if (n_keys == 1) {
                assert_true(place > depths[i] - 0.04 && place < depths[i] + 0.04);
            }
            eval_needle_reset(&needle);
        }
    }
}

static void every_key_is_there_once(void **state)
{
    (void)state;
    eval_needle needle = make(1.0, 8, 3);
    int32_t n = 0;
    for (const char *at = needle.prompt.data; (at = strstr(at, "The secret number for ")); at++) {
        n++;
    }
    assert_int_equal(n, 8);
    eval_needle_reset(&needle);
}

static void prompts_are_a_function_of_seed_and_stream(void **state)
{
    (void)state;
    eval_needle a = make(0.5, 2, 1);
    eval_needle b = make(0.5, 2, 1);
    eval_needle c = make(0.5, 2, 2);
    assert_string_equal(a.prompt.data, b.prompt.data);
    assert_string_equal(a.number, b.number);
    assert_string_not_equal(a.prompt.data, c.prompt.data);
    eval_needle_reset(&a);
    eval_needle_reset(&b);
    eval_needle_reset(&c);
}

static void impossible_prompts_are_refused(void **state)
{
    (void)state;
    eval_needle needle;
    eval_needle_options o = {
        .haystack = base_view_of(haystack), .n_tokens = 127, .depth = 0.5, .n_keys = 1};
    CHECK_STATUS(eval_needle_make(&o, count_words, NULL, &base_heap, &needle), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("127");
    o.n_tokens = 128;
    o.n_keys = 65;
    CHECK_STATUS(eval_needle_make(&o, count_words, NULL, &base_heap, &needle), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("65 keys");
    o.n_keys = 30; /* 30 facts of 8 words */
    CHECK_STATUS(eval_needle_make(&o, count_words, NULL, &base_heap, &needle), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("no room");
    o.n_keys = 1;
    o.haystack = base_view_of("no full stop");
    CHECK_STATUS(eval_needle_make(&o, count_words, NULL, &base_heap, &needle), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("no sentence");
}

static void every_failed_allocation_leaves_nothing(void **state)
{
    (void)state;
    const eval_needle_options o = {
        .haystack = base_view_of(haystack), .n_tokens = 200, .depth = 0.5, .n_keys = 2};
    for (int k = 0;; k++) {
        failing_alloc a = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &a};
        eval_needle needle;
        const base_status st = eval_needle_make(&o, count_words, NULL, &mem, &needle);
        if (st == BASE_OK) {
            assert_true(k > 2);
            eval_needle_reset(&needle);
            assert_int_equal(a.n_live, 0);
            break;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
        assert_int_equal(a.n_live, 0);
    }
}

static void a_reply_matches_when_it_begins_with_the_number(void **state)
{
    (void)state;
    assert_true(eval_needle_matches("48213", base_view_of(" 48213.")));
    assert_true(eval_needle_matches("48213", base_view_of("48213")));
    assert_true(eval_needle_matches("48213", base_view_of("\n48213 and")));
    assert_false(eval_needle_matches("48213", base_view_of(" 482130.")));
    assert_false(eval_needle_matches("48213", base_view_of(" 4821")));
    assert_false(eval_needle_matches("48213", base_view_of("The 48213")));
    assert_false(eval_needle_matches("48213", base_view_of("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_has_the_form_that_the_model_was_trained_on),
        cmocka_unit_test(the_prompt_is_nearly_as_long_as_asked_and_never_longer),
        cmocka_unit_test(the_number_stands_where_the_depth_says),
        cmocka_unit_test(every_key_is_there_once),
        cmocka_unit_test(prompts_are_a_function_of_seed_and_stream),
        cmocka_unit_test(impossible_prompts_are_refused),
        cmocka_unit_test(every_failed_allocation_leaves_nothing),
        cmocka_unit_test(a_reply_matches_when_it_begins_with_the_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
