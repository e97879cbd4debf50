#include "tests/support/test.h"
#include "tests/support/tiny_tokenizer.h"

typedef struct bend {
    const char *path;
    const char *value;
    const char *named; /* what the error must name */
} bend;

static void what_would_change_ids_is_refused_by_name(void **state)
{
    (void)state;
    static const bend bends[] = {
        {"model.type", "\"Unigram\"", "Unigram"},
        {"model.byte_fallback", "true", "NFC"},
        {"model.dropout", "0.1", "dropout"},
        {"model.continuing_subword_prefix", "\"##\"", "continuing_subword_prefix"},
        {"model.end_of_word_suffix", "\"</w>\"", "end_of_word_suffix"},
        {"model.vocab", "[]", "vocab"},
        {"model.vocab", "{}", "merges"},
        {"model.vocab.he", "0", "both have id 0"},
        {"model.vocab.he", "-1", "'he'"},
        {"model.vocab.he", "1048576", "1048575"},
        {"model.vocab.he", "1.5", "'he'"},
        {"model.vocab.zz", "263", "added_tokens[0]"},
        {"model.vocab.<s>", "400", "added_tokens[0]"},
        {"model.merges", "{}", "merges"},
        {"model.merges.0", "[\"h\", \"zz\"]", "zz"},
        {"model.merges.0", "[\"h\", \"l\"]", "'hl'"},
        {"model.merges.0", "\"he\"", "merges[0]"},
        {"model.merges.0", "\"h e l\"", "merges[0]"},
        {"model.merges.0", "\" he\"", "merges[0]"},
        {"model.merges.0", "[\"h\"]", "merges[0]"},
        {"model.merges.0", "[\"h\", 5]", "merges[0]"},
        {"normalizer", "{\"type\": \"NFKC\"}", "NFKC"},
        {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Lowercase\"}]}",
         "Lowercase"},
        {"pre_tokenizer", "{\"type\": \"Metaspace\"}", "Metaspace"},
        {"pre_tokenizer", "null", "ByteLevel"},
        {"pre_tokenizer", "{\"type\": \"ByteLevel\"}", "add_prefix_space"},
        {"pre_tokenizer.pretokenizers.0.behavior", "\"Removed\"", "Removed"},
        {"pre_tokenizer.pretokenizers.0.invert", "true", "invert"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(a\"}", "(a"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"\\\\w+\"}", "\\w"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"a{1,2}+\"}", "{1,2}+"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"^a\"}", "^"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"[a&&b]\"}", "&&"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(?m:a)\"}", "(?m:"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(*UTF)\"}", "(*"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"\"}", "0 bytes"},
        {"pre_tokenizer.pretokenizers.0.pattern", "{}", "String"},
        {"pre_tokenizer.pretokenizers.0.pattern", "7", "pre_tokenizer Split"},
        {"pre_tokenizer.pretokenizers.0", "{\"type\": \"Digits\"}", "Digits"},
        {"pre_tokenizer.pretokenizers.2", "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
         "ByteLevel must be last"},
        {"post_processor", "{\"type\": \"RobertaProcessing\"}", "RobertaProcessing"},
        {"post_processor.single.1", "{\"Sequence\": {\"id\": \"B\"}}", "single"},
        {"post_processor.single.2", "{\"Sequence\": {\"id\": \"A\"}}", "single"},
        {"post_processor.special_tokens.<s>", "{\"ids\": [999]}", "<s>"},
        {"post_processor.special_tokens", "{}", "<s>"},
        {"decoder", "{\"type\": \"WordPiece\"}", "WordPiece"},
        {"added_tokens", "{}", "added_tokens"},
        {"added_tokens.0.lstrip", "true", "lstrip"},
        {"added_tokens.0.rstrip", "true", "rstrip"},
        {"added_tokens.0.single_word", "true", "single_word"},
        {"added_tokens.0.content", "\"\"", "content"},
        {"added_tokens.0.content", "\"</s>\"", "duplicate"},
        {"added_tokens.0.id", "-1", "id"},
        {"added_tokens.1.id", "263", "duplicate"},
        {"added_tokens.3", "{\"id\": 300, \"content\": \"e\xcc\x81\"}", "NFC"},
        {"model", "3", "model"},
    };
    for (size_t i = 0; i < sizeof bends / sizeof bends[0]; i++) {
        text_tokenizer *t = NULL;
        json_t *root = tiny_root();
        tiny_set(root, bends[i].path, bends[i].value);
        const base_status st = tiny_create(root, &base_heap, &t);
        if (st != BASE_BAD_FILE) {
            fail_msg("%s = %s gave %s", bends[i].path, bends[i].value, base_status_name(st));
        }
        assert_null(t);
        CHECK_ERROR_NAMES(bends[i].named);
    }
}

static void a_byte_without_a_token_is_refused(void **state)
{
    (void)state;
    text_tokenizer *t = NULL;
    json_t *root = tiny_root();
    assert_int_equal(json_object_del(json_object_get(json_object_get(root, "model"), "vocab"), "x"),
                     0);
    CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_BAD_FILE);
    CHECK_ERROR_NAMES("0x78");
}

static void what_does_not_change_ids_is_let_through(void **state)
{
    (void)state;
    static const bend bends[] = {
        {"normalizer", "null", NULL},
        {"normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}", NULL},
        {"pre_tokenizer", "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", NULL},
        {"pre_tokenizer.pretokenizers.0.pattern", "{\"String\": \"(\"}", NULL},
        {"post_processor", "null", NULL},
        {"post_processor", "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", NULL},
        {"post_processor", "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}]}",
         NULL},
        {"decoder", "null", NULL},
        {"truncation", "{\"max_length\": 4}", NULL},
        {"model.unk_token", "\"<s>\"", NULL},
        {"model.dropout", "null", NULL},
        {"model.continuing_subword_prefix", "\"\"", NULL},
        {"model.vocab.no byte alphabet", "300", NULL},
    };
    for (size_t i = 0; i < sizeof bends / sizeof bends[0]; i++) {
        text_tokenizer *t = NULL;
        text_ids ids;
        json_t *root = tiny_root();
        const text_encode_options options = {0};
        tiny_set(root, bends[i].path, bends[i].value);
        CHECK_STATUS(tiny_create(root, &base_heap, &t), BASE_OK);
        text_ids_init(&ids, &base_heap);
        CHECK_STATUS(text_encode(t, base_view_of("hello"), options, &ids), BASE_OK);
        assert_int_equal(ids.n_ids, 1);
        assert_int_equal(ids.ids[0], TINY_HELLO);
        text_ids_reset(&ids);
        text_tokenizer_destroy(t);
    }
}

static void bytes_that_are_no_json_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "{", "[]", "null", "{\"model\": {\"a\": 1, \"a\": 1}}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        text_tokenizer *t = NULL;
        CHECK_STATUS(text_tokenizer_create(base_view_of(texts[i]), &base_heap, &t), BASE_BAD_FILE);
        CHECK_ERROR_NAMES("tokenizer.json");
        assert_null(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_would_change_ids_is_refused_by_name),
        cmocka_unit_test(a_byte_without_a_token_is_refused),
        cmocka_unit_test(what_does_not_change_ids_is_let_through),
        cmocka_unit_test(bytes_that_are_no_json_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
