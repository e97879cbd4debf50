#include "base/options.h"

#include "tests/support/failing_alloc.h"
#include "tests/support/test.h"

#include <math.h>

typedef struct settings {
    const char *model, *device, *prompt, *shape;
    const char **stops, **policies;
    int32_t ranks, batch;
    int64_t seed;
    double share, least;
    bool json, quiet;
} settings;

static const base_option table[] = {
    {NULL, 0, "SHAPE", "", BASE_OPTION_CHOICE(settings, shape, "tall, wide")},
    {"model", 0, "DIR", "model folder", BASE_OPTION_TEXT(settings, model), .needed = true},
    {"device", 'd', "DEVICE", "what computes", BASE_OPTION_CHOICE(settings, device, "cpu, cuda")},
    {"prompt", 0, "TEXT", "the prompt", BASE_OPTION_TEXT_OR_EMPTY(settings, prompt)},
    {"stop", 0, "TEXT", "ends it", BASE_OPTION_LIST(settings, stops)},
    {"kv", 0, "POLICY", "side by side", BASE_OPTION_LIST(settings, policies)},
    {"ranks", 0, "N", "of the group", BASE_OPTION_I32(settings, ranks, 1, 64)},
    {"batch", 0, "N", "at once", BASE_OPTION_I32(settings, batch, 1, INT32_MAX)},
    {"seed", 0, "S", "of the sampler", BASE_OPTION_I64(settings, seed, 0, INT64_MAX)},
    {"share", 0, "F", "of memory", BASE_OPTION_REAL_ABOVE(settings, share, 0, 1)},
    {"least", 0, "F", "probability", BASE_OPTION_REAL(settings, least, 0, 1)},
    {"json", 0, NULL, "one object", BASE_OPTION_FLAG(settings, json)},
    {"quiet", 0, NULL, "say nothing", BASE_OPTION_FLAG(settings, quiet)},
};
static const base_command command = {"prog verb", "--model DIR [SHAPE]", BASE_OPTIONS(table)};

static const settings defaults = {
    .device = "cpu", .ranks = 4, .seed = -1, .share = 0.3, .least = 2};

static base_status read_line(settings *s, base_options *line, const base_alloc *mem,
                             const char *const *words)
{
    int n = 0;
    while (words[n] != NULL) {
        n++;
    }
    *s = defaults;
    return base_options_read(&command, n, words, mem, s, line);
}

#define READ(s, line, ...) \
    read_line(&(s), &(line), &base_heap, (const char *const[]){"x", __VA_ARGS__, NULL})

static void fields_keep_their_defaults(void **state)
{
    (void)state;
    settings s;
    base_options line;
    CHECK_STATUS(READ(s, line, "--model", "m"), BASE_OK);
    assert_false(line.help);
    assert_string_equal(s.model, "m");
    assert_ptr_equal(s.device, defaults.device);
    assert_null(s.prompt);
    assert_null(s.shape);
    assert_null(s.stops);
    assert_null(s.policies);
    assert_int_equal(s.ranks, 4);
    assert_int_equal(s.batch, 0);
    assert_int_equal(s.seed, -1);
    assert_true(s.share == 0.3);
    assert_false(s.json);
    base_options_reset(&line);
}

static void every_kind_arrives_in_either_spelling(void **state)
{
    (void)state;
    settings s;
    base_options line;
    CHECK_STATUS(READ(s, line, "--model=m", "--kv=a;b", "-d", "cuda", "--stop", "", "wide",
                      "--stop=x y", "--ranks=64", "--batch", "2147483647", "--seed",
                      "9223372036854775807", "--share", "1", "--least=0", "--json", "--prompt="),
                 BASE_OK);
    assert_string_equal(s.model, "m");
    assert_string_equal(s.device, "cuda");
    assert_string_equal(s.prompt, "");
    assert_string_equal(s.shape, "wide");
    assert_string_equal(s.stops[0], "");
    assert_string_equal(s.stops[1], "x y");
    assert_null(s.stops[2]);
    assert_string_equal(s.policies[0], "a;b");
    assert_null(s.policies[1]);
    assert_int_equal(s.ranks, 64);
    assert_int_equal(s.batch, INT32_MAX);
    assert_true(s.seed == INT64_MAX);
    assert_true(s.share == 1.0);
    assert_true(s.least == 0.0);
    assert_true(s.json);
    assert_false(s.quiet);
    base_options_reset(&line);
}

static void the_last_of_two_counts(void **state)
{
    (void)state;
    settings s;
    base_options line;
    CHECK_STATUS(READ(s, line, "--model", "a", "--ranks", "2", "--model", "b", "--ranks", "3"),
                 BASE_OK);
    assert_string_equal(s.model, "b");
    assert_int_equal(s.ranks, 3);
    base_options_reset(&line);
}

static void what_is_wrong_is_named_with_value_and_limit(void **state)
{
    (void)state;
    static const struct {
        const char *words[3];
        const char *error;
    } rows[] = {
        {{"--ranks", "0"}, "--ranks is 0, allowed 1..64"},
        {{"--ranks", "65"}, "--ranks is 65, allowed 1..64"},
        {{"--ranks", "-1"}, "--ranks is -1, allowed 1..64"},
        {{"--ranks", "two"}, "--ranks is two, allowed 1..64"},
        {{"--ranks", "2x"}, "--ranks is 2x, allowed 1..64"},
        {{"--ranks", "0x10"}, "--ranks is 0x10, allowed 1..64"},
        {{"--ranks="}, "--ranks is empty, allowed 1..64"},
        {{"--seed", "9223372036854775808"},
         "--seed is 9223372036854775808, allowed 0..9223372036854775807"},
        {{"--share", "0"}, "--share is 0, allowed above 0, up to 1"},
        {{"--share", "nan"}, "--share is nan, allowed above 0, up to 1"},
        {{"--share", "1.5"}, "--share is 1.5, allowed above 0, up to 1"},
        {{"--least", "-0.1"}, "--least is -0.1, allowed 0..1"},
        {{"--least", "1e999"}, "--least is 1e999, allowed 0..1"},
        {{"--least="}, "--least is empty, allowed 0..1"},
        {{"--least", "0.5f"}, "--least is 0.5f, allowed 0..1"},
        {{"--device", "tpu"}, "--device is 'tpu', allowed cpu, cuda"},
        {{"--device", "cpu, cuda"}, "--device is 'cpu, cuda', allowed cpu, cuda"},
        {{"--device", "cud"}, "--device is 'cud', allowed cpu, cuda"},
        {{"round"}, "SHAPE is 'round', allowed tall, wide"},
        {{"--model="}, "--model is empty"},
        {{"--bogus", "1"}, "--bogus: unknown option"},
        {{"-z"}, "-z: unknown option"},
        {{"--json=1"}, "--json=1: "},
        {{"--ranks"}, "--ranks: missing argument"},
        {{"tall", "wide"}, "unexpected argument 'wide'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        settings s;
        base_options line;
        const char *const words[] = {"x", "--model", "m", rows[i].words[0], rows[i].words[1], NULL};
        CHECK_STATUS(read_line(&s, &line, &base_heap, words), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(rows[i].error);
        base_options_reset(&line);
    }
}

static void what_is_needed_is_asked_for(void **state)
{
    (void)state;
    settings s;
    base_options line;
    CHECK_STATUS(READ(s, line, "--json"), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("--model is missing");
    base_options_reset(&line);
}

static void help_wins_over_what_is_wrong_after_it_and_missing(void **state)
{
    (void)state;
    settings s;
    base_options line;
    CHECK_STATUS(READ(s, line, "--ranks", "99", "--help", "--bogus"), BASE_OK);
    assert_true(line.help);
    assert_int_equal(s.ranks, 4); /* nothing was written, so the defaults can be shown */
    base_options_reset(&line);
    CHECK_STATUS(READ(s, line, "-h"), BASE_OK);
    assert_true(line.help);
    base_options_reset(&line);
}

static void help_names_every_option_and_the_defaults_within_limits(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n_bytes = 0;
    FILE *out = open_memstream(&text, &n_bytes);
    assert_non_null(out);
    base_options_help(&command, &defaults, out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(text, "Usage: prog verb --model DIR [SHAPE]"));
    for (size_t i = 1; i < sizeof table / sizeof table[0]; i++) {
        assert_non_null(strstr(text, table[i].name));
        assert_non_null(strstr(text, table[i].help));
    }
    assert_non_null(strstr(text, "--help"));
    assert_non_null(strstr(text, "(default: 4)"));
    assert_non_null(strstr(text, "(default: \"cpu\")"));
    assert_non_null(strstr(text, "(default: 0.3)"));
    assert_null(strstr(text, "(default: -1)")); /* seed */
    assert_null(strstr(text, "(default: 0)"));  /* batch */
    assert_null(strstr(text, "(default: 2)"));  /* least */
    free(text);
}

static void reading_survives_every_failed_allocation(void **state)
{
    (void)state;
    const char *const words[] = {"x", "--model", "m", "--stop", "a", NULL};
    for (int k = 0;; k++) {
        failing_alloc f = {.fail_at = k};
        const base_alloc mem = {failing_get, failing_put, &f};
        settings s;
        base_options line;
        const base_status st = read_line(&s, &line, &mem, words);
        base_options_reset(&line);
        assert_int_equal(f.n_live, 0);
        if (st == BASE_OK) {
            assert_int_equal(k, 4);
            return;
        }
        assert_int_equal(st, BASE_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_keep_their_defaults),
        cmocka_unit_test(every_kind_arrives_in_either_spelling),
        cmocka_unit_test(the_last_of_two_counts),
        cmocka_unit_test(what_is_wrong_is_named_with_value_and_limit),
        cmocka_unit_test(what_is_needed_is_asked_for),
        cmocka_unit_test(help_wins_over_what_is_wrong_after_it_and_missing),
        cmocka_unit_test(help_names_every_option_and_the_defaults_within_limits),
        cmocka_unit_test(reading_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
