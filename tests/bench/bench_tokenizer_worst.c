/* Texts that a tokenizer could take quadratic time for: bench_tokenizer_worst TOKENIZER.json [MB [ROUNDS]]
 * One line of JSON a text of MB million bytes (10): encoding's rate for all of it beside that for its first tenth,
 * each the best of ROUNDS (3).  Where time is linear, they are alike; merging one long piece takes n log n, and
 * misses caches that the tenth still fits, so that the two then differ by a small factor, and never by ten. */
#include "base/clock.h"
#include "base/file.h"
#include "base/random.h"
#include "coordinator/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED      1
#define MAX_MB    1000
#define ALL_BYTES 256

typedef struct worst_text {
    const char *name;
    const char *unit; /* written again and again; NULL: n_kinds random bytes */
    char first;       /* of the random bytes */
    uint64_t n_kinds;
} worst_text;

static const worst_text texts[] = {
    {"one letter", "a", 0, 0},
    {"two letters in turn", "ab", 0, 0},
    {"random letters without a space", NULL, 'a', 26},
    {"one character of three bytes", "\xe4\xb8\xad", 0, 0},
    {"spaces", " ", 0, 0},
    {"newlines", "\n", 0, 0},
    {"spaces and newlines in turn", " \n", 0, 0},
    {"tabs before each word", "\t\t\t\t\t\t\t\tx", 0, 0},
    {"digits", NULL, '0', 10},
    {"punctuation", "!?", 0, 0},
    {"combining marks", "e\xcc\x81\xcc\xa3", 0, 0},
    {"one mark", "\xcc\x81", 0, 0},
    {"the beginning of a special token", "<|", 0, 0},
    {"random bytes", NULL, 0, ALL_BYTES},
    {"bytes that are no text", "\xff", 0, 0},
};

static void fill(const worst_text *t, char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (t->unit != NULL) {
            bytes[i] = t->unit[i % strlen(t->unit)];
        } else {
            bytes[i] = (char)((uint64_t)t->first + base_random_u64(SEED, 0, i) % t->n_kinds);
        }
    }
}

static base_status best_of(const text_tokenizer *tokenizer, base_view text, long n_rounds,
                           text_ids *ids, double *mb_per_s_out)
{
    base_status st = BASE_OK;
    const text_encode_options options = {.parse_special = true};
    int64_t best_ns = 0;
    for (long round = 0; round < n_rounds && st == BASE_OK; round++) {
        ids->n_ids = 0;
        const int64_t begin = base_now_ns();
        st = text_encode(tokenizer, text, options, ids);
        const int64_t took = base_now_ns() - begin;
        best_ns = best_ns == 0 || took < best_ns ? took : best_ns;
    }
    *mb_per_s_out = (double)text.n_bytes * 1e3 / (double)best_ns;
    return st;
}

int main(int argc, char **argv)
{
    base_status st = BASE_OK;
    base_view json = {NULL, 0};
    char *json_bytes = NULL;
    char *bytes = NULL;
    text_tokenizer *tokenizer = NULL;
    text_ids ids;
    const long mb = argc > 2 ? strtol(argv[2], NULL, 10) : 10;
    const long n_rounds = argc > 3 ? strtol(argv[3], NULL, 10) : 3;

    text_ids_init(&ids, &base_heap);
    if (argc < 2 || mb < 1 || mb > MAX_MB || n_rounds < 1) {
        fprintf(stderr, "usage: bench_tokenizer_worst TOKENIZER.json [MB 1..%d [ROUNDS]]\n",
                MAX_MB);
        return 2;
    }
    const size_t n_bytes = (size_t)mb * 1000000;
    BASE_TRY(
        st, out,
        base_file_read(argv[1], TEXT_MAX_TOKENIZER_BYTES, &base_heap, &json_bytes, &json.n_bytes));
    json.data = json_bytes;
    BASE_TRY(st, out, text_tokenizer_create(json, &base_heap, &tokenizer));
    bytes = base_heap.get(base_heap.ctx, n_bytes);
    if (bytes == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%zu bytes", n_bytes);
        goto out;
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        double all = 0;
        double tenth = 0;
        fill(&texts[i], bytes, n_bytes);
        st = best_of(tokenizer, (base_view){bytes, n_bytes / 10}, n_rounds, &ids, &tenth);
        if (st == BASE_OK) {
            st = best_of(tokenizer, (base_view){bytes, n_bytes}, n_rounds, &ids, &all);
        }
        printf("{\"bench\": \"tokenizer_worst\", \"text\": \"%s\", \"bytes\": %zu, ", texts[i].name,
               n_bytes);
        if (st == BASE_OUT_OF_RANGE) { /* a promise kept: refused, not slow */
            printf("\"refused\": \"%s\"}\n", base_last_error());
            st = BASE_OK;
            continue;
        }
        BASE_TRY(st, out, st);
        printf("\"ids\": %zu, \"encode_mb_per_s\": %.1f, \"encode_mb_per_s_of_a_tenth\": %.1f}\n",
               ids.n_ids, all, tenth);
        (void)fflush(stdout);
    }

out:
    if (st != BASE_OK) {
        fprintf(stderr, "bench_tokenizer_worst: %s: %s\n", base_status_name(st), base_last_error());
    }
    text_tokenizer_destroy(tokenizer);
    text_ids_reset(&ids);
    base_heap.put(base_heap.ctx, json_bytes);
    base_heap.put(base_heap.ctx, bytes);
    return st == BASE_OK ? 0 : 1;
}
