/* tests/support/tiny_tokenizer.h - a small tokenizer.json made in memory, to be bent by tests.
 *
 * Ids 0..255 are the bytes in the order of the alphabet, then "he" 256, "ll" 257, "hell" 258,
 * "hello" 259, " w" 260, "aa" 261, "aaaa" 262; added tokens <s> 263 and </s> 264 (special) and
 * <tool> 265 (not special).  The template puts <s> in front. */
#ifndef TESTS_SUPPORT_TINY_TOKENIZER_H
#define TESTS_SUPPORT_TINY_TOKENIZER_H

#include "base/bytes.h"
#include "coordinator/text/tokenizer.h"
#include "tests/support/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define TINY_HE    256
#define TINY_LL    257
#define TINY_HELLO 259
#define TINY_BOS   263
#define TINY_EOS   264
#define TINY_TOOL  265
#define TINY_N_IDS 266

static inline json_t *tiny_root(void)
{
    static const char frame[] =
        "{\"added_tokens\": ["
        "{\"id\": 263, \"content\": \"<s>\", \"special\": true, \"normalized\": false},"
        "{\"id\": 264, \"content\": \"</s>\", \"special\": true, \"normalized\": false},"
        "{\"id\": 265, \"content\": \"<tool>\", \"special\": false, \"normalized\": false}],"
        "\"normalizer\": {\"type\": \"NFC\"},"
        "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": ["
        "{\"type\": \"Split\", \"pattern\": {\"Regex\": \" ?\\\\p{L}+|\\\\s+(?!\\\\S)|\\\\s+\"},"
        "\"behavior\": \"Isolated\", \"invert\": false},"
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]},"
        "\"post_processor\": {\"type\": \"TemplateProcessing\","
        "\"single\": [{\"SpecialToken\": {\"id\": \"<s>\"}}, {\"Sequence\": {\"id\": \"A\"}}],"
        "\"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [263]}}},"
        "\"decoder\": {\"type\": \"ByteLevel\"},"
        "\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": [[\"h\", \"e\"], \"l l\","
        "[\"he\", \"ll\"], [\"hell\", \"o\"], \"\\u0120 w\", \"a a\", \"aa aa\"]}}";
    static const char *const joined[] = {"he", "ll", "hell", "hello", "\xc4\xa0w", "aa", "aaaa"};
    json_t *root = json_loads(frame, 0, NULL);
    assert_non_null(root);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    int id = 0;
    for (unsigned code = 0x21; code <= 0x143; code++) {
        char name[3] = {0};
        if ((code > 0x7e && code < 0xa1) || code == 0xad) {
            continue;
        }
        if (code < 0x80) {
            name[0] = (char)code;
        } else {
            name[0] = (char)(0xc0 | code >> 6);
            name[1] = (char)(0x80 | (code & 0x3f));
        }
        json_object_set_new(vocab, name, json_integer(id++));
    }
    assert_int_equal(id, 256);
    for (size_t i = 0; i < sizeof joined / sizeof joined[0]; i++) {
        json_object_set_new(vocab, joined[i], json_integer(id++));
    }
    return root;
}

/* Puts value (JSON text) at a dotted path of object fields and array indices, "model.type". */
static inline void tiny_set(json_t *root, const char *path, const char *value)
{
    char copy[128];
    char *rest = copy;
    json_t *at = root;
    (void)snprintf(copy, sizeof copy, "%s", path);
    json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(v);
    for (;;) {
        char *dot = strchr(rest, '.');
        if (dot != NULL) {
            *dot = '\0';
        }
        if (json_is_array(at) && dot == NULL) {
            const size_t index = strtoul(rest, NULL, 10);
            assert_int_equal(index < json_array_size(at) ? json_array_set_new(at, index, v)
                                                         : json_array_append_new(at, v),
                             0);
            return;
        }
        if (dot == NULL) {
            assert_int_equal(json_object_set_new(at, rest, v), 0);
            return;
        }
        at = json_is_array(at) ? json_array_get(at, strtoul(rest, NULL, 10))
                               : json_object_get(at, rest);
        assert_non_null(at);
        rest = dot + 1;
    }
}

/* Ends root. */
static inline base_status tiny_create(json_t *root, const base_alloc *mem,
                                      text_tokenizer **tokenizer_out)
{
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    assert_non_null(text);
    const base_status st = text_tokenizer_create(base_view_of(text), mem, tokenizer_out);
    free(text);
    return st;
}

static inline text_tokenizer *tiny_tokenizer(void)
{
    text_tokenizer *t = NULL;
    CHECK_STATUS(tiny_create(tiny_root(), &base_heap, &t), BASE_OK);
    return t;
}

#endif /* TESTS_SUPPORT_TINY_TOKENIZER_H */
