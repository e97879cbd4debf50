/* MB/s of encoding and decoding: bench_tokenizer TOKENIZER.json TEXT [ROUNDS]
 * Prints one line of JSON; a MB is 10^6 bytes of text, times are the best of the rounds.  The rate
 * for the first tenth of the text stands beside that for all of it: where time is linear, with a
 * text of 10 MB say, they are alike. */
#include "base/clock.h"
#include "base/file.h"
#include "coordinator/text/tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)
#define MAX_ROUNDS     1000

static int64_t min_us(int64_t best, int64_t begin)
{
    const int64_t took = base_now_us() - begin;
    return best == 0 || took < best ? took : best;
}

static double mb_per_s(size_t n_bytes, int64_t us)
{
    return us > 0 ? (double)n_bytes / (double)us : 0;
}

int main(int argc, char **argv)
{
    base_status st = BASE_OK;
    base_view json = {NULL, 0};
    base_view text = {NULL, 0};
    char *json_bytes = NULL;
    char *text_bytes = NULL;
    text_tokenizer *tokenizer = NULL;
    text_ids ids;
    base_bytes decoded;
    int64_t encode_us = 0;
    int64_t decode_us = 0;
    int64_t tenth_us = 0;
    const long n_rounds = argc > 3 ? strtol(argv[3], NULL, 10) : 5;

    text_ids_init(&ids, &base_heap);
    base_bytes_init(&decoded, MAX_TEXT_BYTES, &base_heap);
    if (argc < 3 || n_rounds < 1 || n_rounds > MAX_ROUNDS) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER.json TEXT [ROUNDS 1..%d]\n", MAX_ROUNDS);
        return 2;
    }
    BASE_TRY(
        st, out,
        base_file_read(argv[1], TEXT_MAX_TOKENIZER_BYTES, &base_heap, &json_bytes, &json.n_bytes));
    BASE_TRY(st, out,
             base_file_read(argv[2], MAX_TEXT_BYTES, &base_heap, &text_bytes, &text.n_bytes));
    json.data = json_bytes;
    text.data = text_bytes;
    const base_view tenth = {text_bytes, text.n_bytes / 10};
    const int64_t create_begin = base_now_us();
    BASE_TRY(st, out, text_tokenizer_create(json, &base_heap, &tokenizer));
    const int64_t create_us = base_now_us() - create_begin;
    for (long round = 0; round < n_rounds; round++) {
        const text_encode_options options = {.parse_special = true};
        ids.n_ids = 0;
        int64_t begin = base_now_us();
        BASE_TRY(st, out, text_encode(tokenizer, tenth, options, &ids));
        tenth_us = min_us(tenth_us, begin);
        ids.n_ids = 0;
        begin = base_now_us();
        BASE_TRY(st, out, text_encode(tokenizer, text, options, &ids));
        encode_us = min_us(encode_us, begin);
        base_bytes_drop_front(&decoded, decoded.n_bytes);
        begin = base_now_us();
        BASE_TRY(st, out, text_decode(tokenizer, ids.ids, ids.n_ids, false, &decoded));
        decode_us = min_us(decode_us, begin);
    }
    printf("{\"bench\": \"tokenizer\", \"text_bytes\": %zu, \"ids\": %zu, \"create_ms\": %.1f, "
           "\"encode_mb_per_s\": %.1f, \"encode_mb_per_s_of_a_tenth\": %.1f, \"decode_mb_per_s\": "
           "%.1f, \"round_trip\": %s}\n",
           text.n_bytes, ids.n_ids, (double)create_us / 1e3, mb_per_s(text.n_bytes, encode_us),
           mb_per_s(tenth.n_bytes, tenth_us), mb_per_s(text.n_bytes, decode_us),
           base_view_equal(base_bytes_view(&decoded), text) ? "true" : "false");

out:
    if (st != BASE_OK) {
        fprintf(stderr, "bench_tokenizer: %s: %s\n", base_status_name(st), base_last_error());
    }
    text_tokenizer_destroy(tokenizer);
    text_ids_reset(&ids);
    base_bytes_reset(&decoded);
    base_heap.put(base_heap.ctx, json_bytes);
    base_heap.put(base_heap.ctx, text_bytes);
    return st == BASE_OK ? 0 : 1;
}
