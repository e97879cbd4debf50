#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"
#include "coordinator/text/tokenizer.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/process.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_INPUT_BYTES ((size_t)1 << 30)

static base_status read_stdin(base_bytes *in)
{
    char chunk[65536];
    for (;;) {
        const ssize_t n = read(STDIN_FILENO, chunk, sizeof chunk);
        if (n == 0) {
            return BASE_OK;
        }
        if (n < 0) {
            return BASE_FAIL(BASE_IO, "stdin: %s", strerror(errno));
        }
        const base_status st = base_bytes_add(in, chunk, (size_t)n);
        if (st != BASE_OK) {
            return st;
        }
    }
}

static base_status encode(const text_tokenizer *tokenizer, base_view text, bool add_special)
{
    text_ids ids;
    const text_encode_options options = {.add_special = add_special, .parse_special = true};

    text_ids_init(&ids, &base_heap);
    const base_status st = text_encode(tokenizer, text, options, &ids);
    if (st == BASE_OK) {
        (void)printf("[");
        for (size_t i = 0; i < ids.n_ids; i++) {
            (void)printf("%s%d", i > 0 ? "," : "", ids.ids[i]);
        }
        (void)printf("]\n");
    }
    text_ids_reset(&ids);
    return st;
}

static base_status decode(const text_tokenizer *tokenizer, base_view json)
{
    base_status st;
    json_t *root = NULL;
    int32_t *ids = NULL;
    base_bytes text;

    base_bytes_init(&text, MAX_INPUT_BYTES, &base_heap);
    BASE_TRY(st, out, base_json_parse(json, "stdin", &root));
    if (!json_is_array(root)) {
        st = BASE_FAIL(BASE_BAD_INPUT, "stdin is not a JSON array of token ids");
        goto out;
    }
    const size_t n_ids = json_array_size(root);
    ids = base_heap.get(base_heap.ctx, (n_ids + 1) * sizeof *ids);
    if (ids == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%zu token ids", n_ids);
        goto out;
    }
    for (size_t i = 0; i < n_ids; i++) {
        const json_t *entry = json_array_get(root, i);
        const json_int_t value = json_integer_value(entry);
        if (!json_is_integer(entry) || value < 0 || value > INT32_MAX) {
            st = BASE_FAIL(BASE_BAD_INPUT, "stdin: entry %zu is not a token id", i);
            goto out;
        }
        ids[i] = (int32_t)value;
    }
    BASE_TRY(st, out, text_decode(tokenizer, ids, n_ids, false, &text));
    (void)fwrite(text.data != NULL ? text.data : "", 1, text.n_bytes, stdout);
out:
    base_bytes_reset(&text);
    base_heap.put(base_heap.ctx, ids);
    base_json_free(root);
    return st;
}

typedef struct tokenize_settings {
    const char *model;
    bool decodes, plain;
} tokenize_settings;

static const base_option table[] = {
    {"model", 0, "DIR", "folder with tokenizer.json", BASE_OPTION_TEXT(tokenize_settings, model),
     .needed = true},
    {"decode", 0, NULL, "a JSON array of ids to text",
     BASE_OPTION_FLAG(tokenize_settings, decodes)},
    {"no-special", 0, NULL, "leave out what the model puts around text",
     BASE_OPTION_FLAG(tokenize_settings, plain)},
};
static const base_command command = {"ropewalk tokenize", "--model DIR [--decode] < INPUT",
                                     BASE_OPTIONS(table)};

int command_tokenize(int argc, const char **argv)
{
    tokenize_settings s = {.model = NULL};
    base_status st = BASE_OK;
    int exit_status = 0;
    base_options line;
    char path[PROCESS_MAX_PATH];
    base_map file = {NULL, 0};
    text_tokenizer *tokenizer = NULL;
    base_bytes in;

    base_bytes_init(&in, MAX_INPUT_BYTES, &base_heap);
    if (!options_open(&command, argc, argv, &s, &line, &exit_status)) {
        goto out;
    }
    if ((size_t)snprintf(path, sizeof path, "%s/tokenizer.json", s.model) >= sizeof path) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--model is %zu bytes long, at most %d", strlen(s.model),
                       PROCESS_MAX_PATH - 16);
        goto out;
    }
    BASE_TRY(st, out, base_map_open(path, &file));
    const base_view json = {(const char *)file.bytes, file.n_bytes};
    BASE_TRY(st, out, text_tokenizer_create(json, &base_heap, &tokenizer));
    BASE_TRY(st, out, read_stdin(&in));
    st = s.decodes ? decode(tokenizer, base_bytes_view(&in))
                   : encode(tokenizer, base_bytes_view(&in), !s.plain);
out:
    text_tokenizer_destroy(tokenizer);
    base_map_close(&file);
    base_bytes_reset(&in);
    if (st != BASE_OK) {
        exit_status = options_report(&command, st);
    }
    base_options_reset(&line);
    return exit_status;
}
