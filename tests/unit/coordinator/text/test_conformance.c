/* Ids of real tokenizer.json files against what other implementations gave for them. */
#include "base/file.h"
#include "base/json.h"
#include "coordinator/text/tokenizer.h"
#include "tests/support/test.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_FILE_BYTES ((size_t)64 << 20)

static const char *folder(const char *variable, const char *otherwise)
{
    const char *value = getenv(variable);
    return value != NULL ? value : otherwise;
}

/* Skips the test, visibly, when the file is missing.  The caller puts *bytes back to base_heap. */
static base_view read_or_skip(const char *dir, const char *name)
{
    char path[1024];
    char *bytes = NULL;
    size_t n_bytes = 0;
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    const base_status st = base_file_read(path, MAX_FILE_BYTES, &base_heap, &bytes, &n_bytes);
    if (st == BASE_NOT_FOUND) {
        printf("SKIP: %s is missing\n", path);
        skip();
    }
    CHECK_STATUS(st, BASE_OK);
    return (base_view){bytes, n_bytes};
}

static void put_back(base_view bytes)
{
    base_heap.put(base_heap.ctx, (void *)(uintptr_t)bytes.data);
}

static text_tokenizer *load_or_skip(const char *dir, const char *name)
{
    text_tokenizer *t = NULL;
    const base_view json = read_or_skip(dir, name);
    CHECK_STATUS(text_tokenizer_create(json, &base_heap, &t), BASE_OK);
    put_back(json);
    return t;
}

static const char *demo_dir(void)
{
    return folder("ROPEWALK_DEMO_MODEL", "models/demo");
}

static const char *fixtures_dir(void)
{
    return folder("ROPEWALK_FIXTURES", "../shared/fixtures");
}

static void check_round_trip(const text_tokenizer *t, base_view text)
{
    text_ids ids;
    base_bytes back;
    const text_encode_options options = {.parse_special = true};
    text_ids_init(&ids, &base_heap);
    base_bytes_init(&back, MAX_FILE_BYTES, &base_heap);
    CHECK_STATUS(text_encode(t, text, options, &ids), BASE_OK);
    CHECK_STATUS(text_decode(t, ids.ids, ids.n_ids, false, &back), BASE_OK);
    assert_true(base_view_equal(base_bytes_view(&back), text));
    base_bytes_reset(&back);
    text_ids_reset(&ids);
}

static void golden_prompts_of_the_demo_model_have_their_ids(void **state)
{
    (void)state;
    char path[1024];
    json_t *golden = NULL;
    const text_encode_options options = {.add_special = true};
    text_tokenizer *t = load_or_skip(demo_dir(), "tokenizer.json");
    (void)snprintf(path, sizeof path, "%s/golden.json", demo_dir());
    CHECK_STATUS(base_json_read(path, MAX_FILE_BYTES, &golden), BASE_OK);
    const json_t *prompts = json_object_get(golden, "prompts");
    size_t n_checked = 0;
    for (size_t p = 0; p < json_array_size(prompts); p++) {
        const json_t *prompt = json_array_get(prompts, p);
        const json_t *want = json_object_get(prompt, "input_ids");
        base_view text = {NULL, 0};
        text_ids ids;
        CHECK_STATUS(base_json_get_text(prompt, "golden", "input_text", false, &text), BASE_OK);
        if (text.data == NULL) {
            continue; /* a prompt that is given as ids only */
        }
        text_ids_init(&ids, &base_heap);
        CHECK_STATUS(text_encode(t, text, options, &ids), BASE_OK);
        assert_int_equal(ids.n_ids, json_array_size(want));
        for (size_t i = 0; i < ids.n_ids; i++) {
            assert_int_equal(ids.ids[i], json_integer_value(json_array_get(want, i)));
        }
        text_ids_reset(&ids);
        n_checked++;
    }
    assert_true(n_checked > 0);
    base_json_free(golden);
    text_tokenizer_destroy(t);
}

static void the_qwen_vectors_have_their_ids(void **state)
{
    (void)state;
    static const char separator[] = "\n__ggml_vocab_test__\n";
    text_tokenizer *t = load_or_skip(fixtures_dir(), "tokenizers/qwen2.5/tokenizer.json");
    const base_view texts = read_or_skip(fixtures_dir(), "tokenizers/qwen2.5/vectors.inp");
    const base_view lines = read_or_skip(fixtures_dir(), "tokenizers/qwen2.5/vectors.out");
    const char *text = texts.data;
    char *line = (char *)(uintptr_t)lines.data; /* NUL behind it, by base_file_read */
    size_t n_checked = 0;
    while (text != NULL) {
        const char *found = strstr(text, separator);
        const char *end = found != NULL ? found : texts.data + texts.n_bytes;
        text_ids ids;
        const base_view one = {text, (size_t)(end - text)};
        const text_encode_options options = {.parse_special = true};
        text_ids_init(&ids, &base_heap);
        CHECK_STATUS(text_encode(t, one, options, &ids), BASE_OK);
        for (size_t i = 0; i < ids.n_ids; i++) {
            const long want = strtol(line, &line, 10);
            if (want != ids.ids[i]) {
                fail_msg("text %zu, token %zu: %d, want %ld", n_checked, i, ids.ids[i], want);
            }
        }
        /* The line has no more ids; a text without ids has an empty line, or none at the end. */
        line += strspn(line, " \r");
        assert_true(*line == '\n' || *line == '\0');
        line += *line == '\n';
        text_ids_reset(&ids);
        text = found != NULL ? found + sizeof separator - 1 : NULL;
        n_checked++;
    }
    assert_int_equal(n_checked, 47);
    put_back(texts);
    put_back(lines);
    text_tokenizer_destroy(t);
}

static void books_come_back_as_they_were(void **state)
{
    (void)state;
    text_tokenizer *t = load_or_skip(demo_dir(), "tokenizer.json");
    const base_view haystack = read_or_skip(demo_dir(), "haystack.txt");
    check_round_trip(t, haystack);
    put_back(haystack);
    text_tokenizer_destroy(t);
}

static void heldout_text_comes_back_as_it_was(void **state)
{
    (void)state;
    const base_view heldout = read_or_skip(fixtures_dir(), "text/heldout.txt");
    text_tokenizer *demo = load_or_skip(demo_dir(), "tokenizer.json");
    text_tokenizer *qwen = load_or_skip(fixtures_dir(), "tokenizers/qwen2.5/tokenizer.json");
    check_round_trip(demo, heldout);
    check_round_trip(qwen, heldout);
    put_back(heldout);
    text_tokenizer_destroy(demo);
    text_tokenizer_destroy(qwen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_prompts_of_the_demo_model_have_their_ids),
        cmocka_unit_test(the_qwen_vectors_have_their_ids),
        cmocka_unit_test(books_come_back_as_they_were),
        cmocka_unit_test(heldout_text_comes_back_as_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
