#include "launch/bench.h"

#include "base/clock.h"
#include "launch/local_group.h"
#include "launch/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_US  20000
#define MAX_ARGS 128
#define MAX_TEXT 192
#define GRACE_MS 1000

/* A command line of mpirun, whose texts are its own. */
typedef struct line {
    char program[PROCESS_MAX_PATH];
    char texts[MAX_ARGS][MAX_TEXT];
    char *argv[MAX_ARGS + 1];
    int32_t n_args, n_texts;
    bool full;
    int64_t limit_ms;  /* 0: none */
    char log_path[40]; /* empty: stderr */
} line;

/* A text that is too long makes the line full, as one too many does. */
static void add(line *l, const char *text)
{
    if (l->n_args == MAX_ARGS) {
        l->full = true;
        return;
    }
    char *own = l->texts[l->n_texts++];
    l->full |= snprintf(own, MAX_TEXT, "%s", text) >= MAX_TEXT;
    l->argv[l->n_args++] = own;
}

static void add_pair(line *l, const char *option, const char *value)
{
    if (value != NULL) {
        add(l, option);
        add(l, value);
    }
}

static void add_number(line *l, const char *option, int64_t value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%lld", (long long)value);
    add_pair(l, option, text);
}

static const char *log_of(const line *l)
{
    return l->log_path[0] != '\0' ? l->log_path : NULL;
}

/* Runs mpirun, which ends when its ranks have. */
static base_status run_ranks(line *l)
{
    base_status st = BASE_OK;
    pid_t pid = 0;
    int exit_status = 0;
    char reason[400];
    const int64_t begin = base_now_us();

    if (l->full) {
        return BASE_FAIL(BASE_BAD_INPUT, "more than the ranks can be told: %d texts of %d letters",
                         MAX_ARGS, MAX_TEXT);
    }
    local_group_set_environment();
    BASE_TRY(st, out, process_start(l->argv, log_of(l), &pid));
    while (process_alive(pid, &exit_status)) {
        if (l->limit_ms > 0 && base_now_us() - begin > l->limit_ms * 1000) {
            process_end(pid, GRACE_MS);
            return BASE_FAIL(BASE_TIMEOUT, "not done after %lld s", (long long)l->limit_ms / 1000);
        }
        base_sleep_us(POLL_US);
    }
    if (exit_status != 0) {
        process_said(log_of(l), 0, " error bench scale: ", reason, sizeof reason);
        st = reason[0] != '\0'
                 ? BASE_FAIL(BASE_UNAVAILABLE, "%s", reason)
                 : BASE_FAIL(BASE_UNAVAILABLE, "the ranks ended with status %d", exit_status);
    }
out:
    return st;
}

static base_status begin_line(line *l, const char *program, int32_t n_ranks)
{
    static const char *const mpirun[] = {"mpirun", "--oversubscribe", "--bind-to", "none"};
    const base_status st = process_sibling(program, l->program);

    for (size_t i = 0; i < sizeof mpirun / sizeof mpirun[0]; i++) {
        add(l, mpirun[i]);
    }
    add_number(l, "-n", n_ranks);
    l->argv[l->n_args++] = l->program;
    return st;
}

/* Runs the line with a file that rank 0 writes. */
static base_status report_of(line *l, json_t **json_out)
{
    base_status st = BASE_OK;
    char file[] = "/tmp/ropewalk-bench-XXXXXX";
    json_error_t error;

    BASE_TRY(st, out, process_make_file(file));
    add_pair(l, "--out", file);
    BASE_TRY(st, out, run_ranks(l));
    *json_out = json_load_file(file, 0, &error);
    if (*json_out == NULL) {
        st = BASE_FAIL(BASE_IO, "what the ranks wrote: %s", error.text);
    }
out:
    (void)unlink(file);
    return st;
}

base_status bench_merge(const bench_options *o, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    char seconds[32];
    line *l = mem->get(mem->ctx, sizeof *l);

    if (l == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "command line of the ranks");
    }
    BASE_TRY(st, out, begin_line(l, "ropewalk-bench-merge", o->n_ranks));
    (void)snprintf(seconds, sizeof seconds, "%g", o->seconds);
    add_pair(l, "--device", kern_device_name(o->device));
    add_pair(l, "--seconds", seconds);
    st = report_of(l, json_out);
out:
    mem->put(mem->ctx, l);
    return st;
}

base_status bench_scale(const bench_options *o, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    line *l = mem->get(mem->ctx, sizeof *l);

    if (l == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "command line of the ranks");
    }
    l->limit_ms = o->limit_ms;
    if (o->limit_ms > 0) { /* ranks may fail, and people read why in a table */
        (void)snprintf(l->log_path, sizeof l->log_path, "/tmp/ropewalk-log-XXXXXX");
        BASE_TRY(st, out, process_make_file(l->log_path));
    }
    BASE_TRY(st, out, begin_line(l, "ropewalk-bench-scale", o->n_ranks));
    add_pair(l, "--model", o->model);
    add_pair(l, "--device", o->wished_device);
    add_pair(l, "--merge", o->merge);
    add_pair(l, "--weights", o->weights);
    if (o->share_gpu) {
        add(l, "--share-gpu");
    }
    if (o->prefill) {
        add(l, "--prefill");
        if (o->whole) {
            add(l, "--whole");
        }
        if (o->parts) {
            add(l, "--parts");
        }
        add_number(l, "--prefill-chunk", o->prefill_chunk);
    }
    add_number(l, "--threads", o->threads[0]);
    add_number(l, "--batch", o->batch);
    for (int32_t i = 0; i < o->n_policies; i++) {
        add_pair(l, "--kv", o->policies[i]);
    }
    for (int32_t i = 0; i < o->n_contexts; i++) {
        add_number(l, "--context", o->contexts[i]);
    }
    st = report_of(l, json_out);
out:
    if (log_of(l) != NULL) {
        (void)unlink(l->log_path);
    }
    mem->put(mem->ctx, l);
    return st;
}
