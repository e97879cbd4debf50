#include "base/bytes.h"
#include "base/file.h"
#include "coordinator/text/tokenizer.h"
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
    char *model;
    char *text;
    char *out;
    int max_tokens;
    int n_threads;
} calibrate_options;

static base_status check(calibrate_options *o)
{
    if (o->model == NULL || o->text == NULL || o->out == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s is missing",
                         o->model == NULL  ? "--model"
                         : o->text == NULL ? "--text (any prose in the model's language)"
                                           : "-o");
    }
    if (o->max_tokens < 1 || o->max_tokens > ENERGY_MAX_TOKENS) {
        return BASE_FAIL(BASE_BAD_INPUT, "--max-tokens is %d, allowed 1..%d", o->max_tokens,
                         ENERGY_MAX_TOKENS);
    }
    if (o->n_threads == 0) {
        const long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
        o->n_threads = n_cores < 1 ? 1 : (int)n_cores;
    }
    return BASE_OK;
}

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

int command_calibrate(int argc, const char **argv)
{
    calibrate_options o = {.max_tokens = USUAL_TOKENS};
    poptContext context = NULL;
    const struct poptOption table[] = {
        {"model", '\0', POPT_ARG_STRING, &o.model, 0, "model folder", "DIR"},
        {"text", '\0', POPT_ARG_STRING, &o.text, 0, "prose to run the model over", "FILE"},
        {"max-tokens", '\0', POPT_ARG_INT, &o.max_tokens, 0, "read so many of it (2048)", "N"},
        {"threads", '\0', POPT_ARG_INT, &o.n_threads, 0, "(all cores)", "N"},
        {"output", 'o', POPT_ARG_STRING, &o.out, 0,
         "where the calibration goes; DIR/ropewalk/block-gtq.cal is found by itself", "FILE"},
        POPT_AUTOHELP POPT_TABLEEND};

    base_status st =
        options_parse(argc, argv, table, "calibrate --model DIR --text FILE -o FILE", &context);
    if (st != BASE_OK) {
        return options_report("calibrate", st);
    }
    if (poptPeekArg(context) != NULL) {
        st = BASE_FAIL(BASE_BAD_INPUT, "'%s' is no option", poptPeekArg(context));
        goto out;
    }
    BASE_TRY(st, out, check(&o));
    st = calibrate(&o);
out:
    options_end(context, table);
    return st == BASE_OK ? 0 : options_report("calibrate", st);
}
