#include "base/bytes.h"
#include "base/file.h"
#include "coordinator/text/tokenizer.h"
#include "kernels/kern.h"
#include "kvshard/calibration.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/process.h"
#include "worker/model/energy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define USUAL_TOKENS   2048
#define BYTES_OF_TOKEN 64 /* as much of a text is read for each token that is asked for */

typedef struct calibrate_options {
    const char *model;
    const char *text;
    const char *out;
    int32_t max_tokens;
    int32_t n_threads; /* 0: all cores */
} calibrate_options;

static void show_progress(void *ctx, int32_t n_done, int32_t n_tokens)
{
    (void)ctx;
    (void)fprintf(stderr, "\r%d of %d tokens%s", n_done, n_tokens, n_done == n_tokens ? "\n" : "");
}

/* The first ids of a file. */
static base_status read_ids(const model *m, const calibrate_options *o, text_ids *ids_out)
{
    base_status st;
    base_map file = {NULL, 0};
    text_tokenizer *tokenizer = NULL;
    const text_encode_options options = {.add_special = true};

    BASE_TRY(st, out, base_map_open(o->text, &file));
    BASE_TRY(st, out, text_tokenizer_create(m->tokenizer_json, &base_heap, &tokenizer));
    const size_t most = (size_t)o->max_tokens * BYTES_OF_TOKEN;
    const base_view text = {(const char *)file.bytes, file.n_bytes < most ? file.n_bytes : most};
    BASE_TRY(st, out, text_encode(tokenizer, text, options, ids_out));
    const size_t limit =
        (size_t)(m->config.max_context < o->max_tokens ? m->config.max_context : o->max_tokens);
    ids_out->n_ids = ids_out->n_ids < limit ? ids_out->n_ids : limit;
    if (ids_out->n_ids == 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "%s holds no text", o->text);
    }
out:
    text_tokenizer_destroy(tokenizer);
    base_map_close(&file);
    return st;
}

/* Whole or not at all: beside it first, then in its place. */
static base_status write_file(const char *path, base_view bytes)
{
    char beside[PROCESS_MAX_PATH];
    if ((size_t)snprintf(beside, sizeof beside, "%s.part", path) >= sizeof beside) {
        return BASE_FAIL(BASE_BAD_INPUT, "-o is %zu bytes long, at most %zu", strlen(path),
                         sizeof beside - 6);
    }
    FILE *file = fopen(beside, "wb");
    if (file == NULL) {
        return BASE_FAIL(BASE_IO, "%s: %s", beside, strerror(errno));
    }
    const size_t n_written = fwrite(bytes.data, 1, bytes.n_bytes, file);
    const int closed = fclose(file);
    if (n_written != bytes.n_bytes || closed != 0 || rename(beside, path) != 0) {
        const base_status st = BASE_FAIL(BASE_IO, "%s: %s", path, strerror(errno));
        (void)unlink(beside);
        return st;
    }
    return BASE_OK;
}

static base_status calibrate(const calibrate_options *o)
{
    base_status st;
    model *m = NULL;
    kv_calibration *calibration = NULL;
    text_ids ids;
    base_bytes bytes;

    text_ids_init(&ids, &base_heap);
    base_bytes_init(&bytes, KV_CALIBRATION_MAX_BYTES, &base_heap);
    BASE_TRY(st, out, model_open(o->model, &base_heap, &m));
    BASE_TRY(st, out, read_ids(m, o, &ids));
    BASE_TRY(st, out,
             energy_measure(m, ids.ids, (int32_t)ids.n_ids, o->n_threads,
                            isatty(STDERR_FILENO) ? show_progress : NULL, NULL, &base_heap,
                            &calibration));
    BASE_TRY(st, out, kv_calibration_write(calibration, &bytes));
    BASE_TRY(st, out, write_file(o->out, base_bytes_view(&bytes)));
    (void)printf("%s: %s of %s over %zu tokens, %zu bytes\n", o->out, KV_CALIBRATION_KIND, m->name,
                 ids.n_ids, bytes.n_bytes);
out:
    kv_calibration_destroy(calibration);
    base_bytes_reset(&bytes);
    text_ids_reset(&ids);
    model_close(m);
    return st;
}

static const base_option table[] = {
    {"model", 0, "DIR", "model folder", BASE_OPTION_TEXT(calibrate_options, model), .needed = true},
    {"text", 0, "FILE", "any prose in the model's language, to run the model over",
     BASE_OPTION_TEXT(calibrate_options, text), .needed = true},
    {"max-tokens", 0, "N", "read so many of it",
     BASE_OPTION_I32(calibrate_options, max_tokens, 1, ENERGY_MAX_TOKENS)},
    {"threads", 0, "N", "(all cores)",
     BASE_OPTION_I32(calibrate_options, n_threads, 1, KERN_MAX_THREADS)},
    {"output", 'o', "FILE",
     "where the calibration goes; DIR/ropewalk/block-gtq.cal is found by itself",
     BASE_OPTION_TEXT(calibrate_options, out), .needed = true},
};
static const base_command command = {"ropewalk calibrate", "--model DIR --text FILE -o FILE",
                                     BASE_OPTIONS(table)};

int command_calibrate(int argc, const char **argv)
{
    calibrate_options o = {.max_tokens = USUAL_TOKENS};
    base_status st = BASE_OK;
    int exit_status = 0;
    base_options line;

    if (!options_open(&command, argc, argv, &o, &line, &exit_status)) {
        goto out;
    }
    if (o.n_threads == 0) {
        const long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
        o.n_threads = n_cores < 1 ? 1 : (int32_t)n_cores;
    }
    st = calibrate(&o);
    if (st != BASE_OK) {
        exit_status = options_report(&command, st);
    }
out:
    base_options_reset(&line);
    return exit_status;
}
