#include "worker/engine/options.h"

#include "tests/support/test.h"

#include <stdlib.h>

static base_options line; /* of the latest parse: its texts live until the next one */

static base_status parse(worker_options *out, const char *const *args)
{
    const char *argv[32] = {"ropewalk-worker"};
    int argc = 1;
    while (args[argc - 1] != NULL) {
        argv[argc] = args[argc - 1];
        argc++;
    }
    base_options_reset(&line);
    return worker_options_parse(argc, argv, &base_heap, &line, out);
}

static int forget(void **state)
{
    (void)state;
    base_options_reset(&line);
    return 0;
}

#define PARSE(out, ...) parse(&(out), (const char *const[]){__VA_ARGS__, NULL})
#define NEEDED          "--coordinator", "localhost:7000", "--model", "some/folder"

static void the_defaults_are_those_of_the_help(void **state)
{
    (void)state;
    worker_options o;
    CHECK_STATUS(PARSE(o, NEEDED), BASE_OK);
    assert_false(line.help);
    assert_string_equal(o.coordinator, "localhost:7000");
    assert_string_equal(o.model, "some/folder");
    assert_null(o.rope_scaling);
    assert_int_equal(o.policy.kind, KV_POLICY_BF16);
    assert_int_equal(o.n_threads, 0);
    assert_int_equal(o.max_batch, 8);
    assert_int_equal(o.max_context, 0);
    assert_int_equal(o.prefill_chunk, 0);
    assert_int_equal(o.n_pages, 0);
    assert_true(o.kv_memory_fraction == 0.0);
    assert_null(o.device);
    assert_string_equal(o.merge, "auto");
    assert_string_equal(o.weights, "auto");
    assert_int_equal(o.log_level, BASE_LOG_INFO);
}

static void every_option_arrives(void **state)
{
    (void)state;
    worker_options o;
    CHECK_STATUS(PARSE(o, "--coordinator=unix:/tmp/x", "--model=m", "--kv", "tq:k=3,v=4",
                       "--threads=2", "--max-batch", "1024", "--max-context", "1000000",
                       "--prefill-chunk", "1024", "--pages=77", "--kv-memory-fraction", "0.5",
                       "--log-level", "debug", "--rope-scaling", "none", "--device", "cpu",
                       "--weights", "split"),
                 BASE_OK);
    assert_string_equal(o.coordinator, "unix:/tmp/x");
    assert_string_equal(o.rope_scaling, "none");
    assert_string_equal(o.device, "cpu");
    assert_string_equal(o.weights, "split");
    assert_int_equal(o.policy.kind, KV_POLICY_TQ);
    assert_int_equal(o.policy.k_bits, 3);
    assert_int_equal(o.policy.v_bits, 4);
    assert_int_equal(o.n_threads, 2);
    assert_int_equal(o.max_batch, 1024);
    assert_int_equal(o.max_context, 1000000);
    assert_int_equal(o.prefill_chunk, 1024);
    assert_int_equal(o.n_pages, 77);
    assert_true(o.kv_memory_fraction == 0.5);
    assert_int_equal(o.log_level, BASE_LOG_DEBUG);
}

static void a_chunk_is_the_device_s_unless_it_is_asked_for(void **state)
{
    (void)state;
    static const kern_device devices[] = {KERN_DEVICE_CPU, KERN_DEVICE_CUDA};
    static const int32_t chunks[] = {512, 4096};
    for (int32_t i = 0; i < 2; i++) {
        worker_options o;
        CHECK_STATUS(PARSE(o, "--coordinator=localhost:7000", "--model=m"), BASE_OK);
        worker_options_settle(&o, devices[i]);
        assert_int_equal(o.prefill_chunk, chunks[i]);
        CHECK_STATUS(PARSE(o, "--coordinator=localhost:7000", "--model=m", "--prefill-chunk=1024"),
                     BASE_OK);
        worker_options_settle(&o, devices[i]);
        assert_int_equal(o.prefill_chunk, 1024);
    }
}

static void help_wins_over_everything_after_it(void **state)
{
    (void)state;
    worker_options o;
    CHECK_STATUS(PARSE(o, "--help", "--nonsense"), BASE_OK);
    assert_true(line.help);
    char *text = NULL;
    size_t n_bytes = 0;
    FILE *out = open_memstream(&text, &n_bytes);
    assert_non_null(out);
    worker_options_help(&o, out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(text, "--kv-memory-fraction"));
    assert_non_null(strstr(text, "(default: 8)")); /* --max-batch */
    free(text);
}

static void impossible_values_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *option, *value, *name;
    } rows[] = {
        {"--threads", "0", "--threads is 0"},
        {"--threads", "257", "1..256"},
        {"--threads", "two", "--threads is two"},
        {"--threads", "2x", "--threads is 2x"},
        {"--max-batch", "0", "--max-batch"},
        {"--max-batch", "1025", "1..1024"},
        {"--max-batch", "99999999999999999999", "--max-batch"},
        {"--max-context", "1", "--max-context"},
        {"--max-context", "-5", "--max-context"},
        {"--prefill-chunk", "100", "--prefill-chunk"},
        {"--prefill-chunk", "200", "multiples of 128"},
        {"--pages", "0", "--pages"},
        {"--pages", "", "--pages"},
        {"--kv-memory-fraction", "0", "--kv-memory-fraction"},
        {"--kv-memory-fraction", "1.5", "--kv-memory-fraction"},
        {"--kv-memory-fraction", "nan", "--kv-memory-fraction"},
        {"--kv", "tq:k=9", "k"},
        {"--kv", "magic", "magic"},
        {"--log-level", "loud", "loud"},
        {"--coordinator", "nowhere", "nowhere"},
        {"--model", "", "--model"},
        {"--rope-scaling", "", "--rope-scaling"},
        {"--nonsense", "1", "--nonsense"},
        {"stray", "1", "stray"},
        {"--threads", NULL, "--threads"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        worker_options o;
        CHECK_STATUS(PARSE(o, NEEDED, rows[i].option, rows[i].value), BASE_BAD_INPUT);
        CHECK_ERROR_NAMES(rows[i].name);
    }
}

static void what_is_needed_is_asked_for(void **state)
{
    (void)state;
    worker_options o;
    CHECK_STATUS(PARSE(o, "--model", "m"), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("--coordinator is missing");
    CHECK_STATUS(PARSE(o, "--coordinator", "h:1"), BASE_BAD_INPUT);
    CHECK_ERROR_NAMES("--model is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_defaults_are_those_of_the_help),
        cmocka_unit_test(every_option_arrives),
        cmocka_unit_test(a_chunk_is_the_device_s_unless_it_is_asked_for),
        cmocka_unit_test(help_wins_over_everything_after_it),
        cmocka_unit_test(impossible_values_are_refused_by_name),
        cmocka_unit_test(what_is_needed_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, forget);
}
