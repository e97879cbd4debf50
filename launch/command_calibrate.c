#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "coordinator/text/tokenizer.h"
#include "kernels/kern.h"
#include "kvshard/calibration.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/process.h"
#include "worker/eval/energy.h"
#include "worker/model/random_model.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

typedef struct progress {
    int64_t begin_us;
    bool terminal; /* show it on stderr */
} progress;

/* A layer of a large model takes seconds: what is left follows from the layers done. */
static void show_progress(void *ctx, int64_t n_done, int64_t n_total)
{
    const progress *p = ctx;
    if (!p->terminal || n_done == 0) {
        return;
    }
    const double took_s = (double)(base_now_us() - p->begin_us) / 1e6;
    (void)fprintf(stderr, "\r%3.0f %%, %.0f s, about %.0f s to go\033[K%s",
                  100.0 * (double)n_done / (double)n_total, took_s,
                  took_s * (double)(n_total - n_done) / (double)n_done,
                  n_done == n_total ? "\n" : "");
}

/* The first bytes of a text as ids: random weights have no tokenizer, and any ids show what it costs. */
static base_status read_bytes(const model *m, base_view text, text_ids *ids_out)
{
    ids_out->ids = ids_out->mem.get(ids_out->mem.ctx, (text.n_bytes + 1) * sizeof *ids_out->ids);
    if (ids_out->ids == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%zu ids", text.n_bytes);
    }
    ids_out->capacity = text.n_bytes + 1;
    for (size_t i = 0; i < text.n_bytes; i++) {
        ids_out->ids[ids_out->n_ids++] = (uint8_t)text.data[i] % m->config.n_vocab;
    }
    return BASE_OK;
}

/* The first ids of a file. */
static base_status read_ids(const model *m, const calibrate_options *o, text_ids *ids_out)
{
    base_status st;
    base_map file = {NULL, 0};
    text_tokenizer *tokenizer = NULL;
    const text_encode_options options = {.add_special = true};

    BASE_TRY(st, out, base_map_open(o->text, &file));
    const size_t most = (size_t)o->max_tokens * BYTES_OF_TOKEN;
    const base_view text = {(const char *)file.bytes, file.n_bytes < most ? file.n_bytes : most};
    if (random_model_is(o->model)) {
        BASE_TRY(st, out, read_bytes(m, text, ids_out));
    } else {
        BASE_TRY(st, out, text_tokenizer_create(m->tokenizer_json, &base_heap, &tokenizer));
        BASE_TRY(st, out, text_encode(tokenizer, text, options, ids_out));
    }
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

/* DIR/ropewalk of a model that was just downloaded is not there yet. */
static base_status make_parent(const char *path)
{
    char parent[PROCESS_MAX_PATH];
    const char *slash = strrchr(path, '/');
    const size_t n = slash == NULL ? 0 : (size_t)(slash - path);
    if (n == 0 || n >= sizeof parent) { /* too long: write_file says so */
        return BASE_OK;
    }
    memcpy(parent, path, n);
    parent[n] = '\0';
    return mkdir(parent, 0777) == 0 || errno == EEXIST
               ? BASE_OK
               : BASE_FAIL(BASE_IO, "-o: cannot make folder %s: %s", parent, strerror(errno));
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
    BASE_TRY(st, out, make_parent(o->out)); /* before the minutes that a large model takes */
    BASE_TRY(st, out, model_open(o->model, &base_heap, &m));
    BASE_TRY(st, out, read_ids(m, o, &ids));
    progress shown = {.begin_us = base_now_us(), .terminal = isatty(STDERR_FILENO) == 1};
    BASE_TRY(st, out,
             eval_energy_measure(m, ids.ids, (int32_t)ids.n_ids, o->n_threads, show_progress,
                                 &shown, &base_heap, &calibration));
    const double took_s = (double)(base_now_us() - shown.begin_us) / 1e6;
    BASE_TRY(st, out, kv_calibration_write(calibration, &bytes));
    BASE_TRY(st, out, write_file(o->out, base_bytes_view(&bytes)));
    (void)printf("%s: %s of %s over %zu tokens in %.1f s, %zu bytes\n", o->out, KV_CALIBRATION_KIND,
                 m->name, ids.n_ids, took_s, bytes.n_bytes);
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
     BASE_OPTION_I32(calibrate_options, max_tokens, 1, EVAL_ENERGY_MAX_TOKENS)},
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
