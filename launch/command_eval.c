#include "launch/commands.h"
#include "launch/eval_report.h"
#include "launch/eval_session.h"
#include "launch/options.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_POLICY_LIST 4096
#define MAX_WINDOW      (1 << 20)

typedef struct arguments { /* as given */
    const char *model, *text, *haystack, *task, *needle, *device;
    const char **policies; /* one of each --kv */
    int32_t window, depths, trials, keys, threads;
    int64_t max_tokens, seed;
    bool logits, json;
} arguments;

/* "POLICY;POLICY": a policy has commas of its own. */
static base_status add_policies(const char *list, eval_options *o)
{
    base_status st = BASE_OK;
    char text[KV_MAX_POLICY_TEXT];
    for (const char *at = list; st == BASE_OK; at++) {
        const size_t n = strcspn(at, ";");
        if (n >= sizeof text) {
            return BASE_FAIL(BASE_BAD_INPUT, "--kv: a policy of %zu bytes, at most %zu", n,
                             sizeof text - 1);
        }
        if (o->n_policies == EVAL_MAX_POLICIES) {
            return BASE_FAIL(BASE_BAD_INPUT, "--kv: more than %d policies", EVAL_MAX_POLICIES);
        }
        memcpy(text, at, n);
        text[n] = '\0';
        st = kv_policy_parse(text, &o->policies[o->n_policies]);
        memcpy(o->policy_texts[o->n_policies], text, n + 1);
        o->n_policies++;
        at += n;
        if (*at == '\0') {
            break;
        }
    }
    return st;
}

static base_status add_lengths(const char *list, eval_options *o)
{
    int64_t lengths[EVAL_MAX_LENGTHS];
    const base_status st =
        options_lengths("--needle", list, 256, INT32_MAX, lengths, EVAL_MAX_LENGTHS, &o->n_lengths);
    for (int32_t i = 0; st == BASE_OK && i < o->n_lengths; i++) {
        o->lengths[i] = (int32_t)lengths[i];
    }
    return st;
}

static int default_threads(void)
{
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

static base_status options_make(const arguments *a, eval_options *o)
{
    base_status st = BASE_OK;
    if (a->text == NULL && a->needle == NULL && a->task == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "nothing to measure: give --text, --needle or --task");
    }
    if (a->logits && a->text == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "--logits needs --text");
    }
    *o = (eval_options){
        .model = a->model, .text = a->text, .haystack = a->haystack, .task = a->task};
    for (int32_t i = 0; a->policies[i] != NULL; i++) {
        BASE_TRY(st, out, add_policies(a->policies[i], o));
    }
    if (a->needle != NULL) {
        BASE_TRY(st, out, add_lengths(a->needle, o));
    }
    o->max_tokens = a->max_tokens;
    o->window = a->window;
    o->logits = a->logits;
    o->n_depths = a->depths;
    o->n_trials = a->trials;
    o->n_keys = a->keys;
    o->seed = (uint64_t)a->seed;
    o->n_threads = a->threads;
    st = kern_device_choose(a->device, &o->device);
out:
    return st;
}

static base_status measure(const eval_options *o, bool json)
{
    base_status st = BASE_OK;
    eval_session s = {.model = NULL};
    BASE_TRY(st, out, eval_session_open(o, &s));
    if (o->text != NULL) {
        BASE_TRY(st, out, eval_session_text(&s));
    }
    if (o->n_lengths > 0) {
        BASE_TRY(st, out, eval_session_needle(&s));
    }
    if (o->task != NULL) {
        BASE_TRY(st, out, eval_session_task(&s));
    }
    if (json) {
        st = eval_report_json(&s);
    } else {
        eval_report_tables(&s);
    }
out:
    eval_session_close(&s);
    return st;
}

static const base_option table[] = {
    {"model", 0, "DIR", "model folder", BASE_OPTION_TEXT(arguments, model), .needed = true},
    {"kv", 0, "POLICY[;POLICY...]", "policies to compare, ';' between them; may be repeated",
     BASE_OPTION_LIST(arguments, policies), .needed = true},
    {"text", 0, "FILE", "perplexity on a text", BASE_OPTION_TEXT(arguments, text)},
    {"max-tokens", 0, "N", "of the text, from its start; 0: all",
     BASE_OPTION_I64(arguments, max_tokens, 0, INT64_MAX)},
    {"window", 0, "N", "tokens of the text that are read in one context",
     BASE_OPTION_I32(arguments, window, 2, MAX_WINDOW)},
    {"logits", 0, NULL, "on the same text: logits against bf16, and attention logits by layer",
     BASE_OPTION_FLAG(arguments, logits)},
    {"needle", 0, "LENGTH[,LENGTH...]", "numbers to find in contexts of these lengths (tokens)",
     BASE_OPTION_TEXT(arguments, needle)},
    {"depths", 0, "N", "evenly from the start to the end; 1: the middle",
     BASE_OPTION_I32(arguments, depths, 1, EVAL_MAX_DEPTHS)},
    {"trials", 0, "N", "prompts of each length and depth",
     BASE_OPTION_I32(arguments, trials, 1, 1000)},
    {"keys", 0, "N", "numbers hidden in a prompt; one is asked for",
     BASE_OPTION_I32(arguments, keys, 1, 64)},
    {"seed", 0, "N", "of the prompts", BASE_OPTION_I64(arguments, seed, 0, INT64_MAX)},
    {"haystack", 0, "FILE", "text of the prompts (--text, else DIR/haystack.txt)",
     BASE_OPTION_TEXT(arguments, haystack)},
    {"task", 0, "FILE.jsonl",
     "own questions, a line each: {\"prompt\", \"answers\": [], \"scorer\": exact, contains or f1, "
     "\"max_new_tokens\"}",
     BASE_OPTION_TEXT(arguments, task)},
    {"threads", 0, "N", "of the CPU", BASE_OPTION_I32(arguments, threads, 1, KERN_MAX_THREADS)},
    {"device", 0, "DEVICE", "cpu or cuda (a GPU if there is one)",
     BASE_OPTION_CHOICE(arguments, device, "cpu, cuda")},
    {"json", 0, NULL, "one JSON object", BASE_OPTION_FLAG(arguments, json)},
};
static const base_command command = {
    "ropewalk eval",
    "--model DIR --kv POLICY[;POLICY...] [--text FILE "
    "[--logits]] [--needle LENGTH[,LENGTH...]] [--task FILE.jsonl]",
    BASE_OPTIONS(table)};

int command_eval(int argc, const char **argv)
{
    arguments a = {.window = 2048,
                   .depths = 5,
                   .trials = 1,
                   .keys = 1,
                   .seed = 1,
                   .threads = default_threads()};
    eval_options options = {.n_policies = 0};
    base_status st = BASE_OK;
    int exit_status = 0;
    base_options line;

    if (!options_open(&command, argc, argv, &a, &line, &exit_status)) {
        goto out;
    }
    BASE_TRY(st, out, options_make(&a, &options));
    st = measure(&options, a.json);
out:
    if (st != BASE_OK) {
        exit_status = options_report(&command, st);
    }
    base_options_reset(&line);
    return exit_status;
}
