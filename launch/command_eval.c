#include "launch/commands.h"
#include "launch/eval_report.h"
#include "launch/eval_session.h"
#include "launch/options.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_POLICY_LIST 4096
#define MAX_WINDOW      (1 << 20)

typedef struct arguments { /* as popt fills them */
    char *model, *text, *haystack, *task, *needle;
    char **policies; /* one of each --kv */
    int window, depths, trials, keys, threads, logits, json;
    long long max_tokens, seed;
} arguments;

static base_status check(const char *name, long long value, long long low, long long high)
{
    return value >= low && value <= high
               ? BASE_OK
               : BASE_FAIL(BASE_BAD_INPUT, "%s is %lld, allowed %lld..%lld", name, value, low,
                           high);
}

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

/* "4096,8K" */
static base_status add_lengths(const char *list, eval_options *o)
{
    const char *at = list;
    for (;;) {
        char *end = NULL;
        errno = 0;
        long long value = *at >= '0' && *at <= '9' ? strtoll(at, &end, 10) : 0;
        if (end != NULL && (*end == 'K' || *end == 'k')) {
            value = value > INT32_MAX ? value : value * 1024;
            end++;
        }
        if (end == NULL || errno != 0 || value < 256 || value > INT32_MAX ||
            (*end != ',' && *end != '\0')) {
            return BASE_FAIL(BASE_BAD_INPUT,
                             "--needle '%.60s': lengths in tokens, at least 256, as in 4096,8K",
                             list);
        }
        if (o->n_lengths == EVAL_MAX_LENGTHS) {
            return BASE_FAIL(BASE_BAD_INPUT, "--needle: more than %d lengths", EVAL_MAX_LENGTHS);
        }
        o->lengths[o->n_lengths++] = (int32_t)value;
        if (*end == '\0') {
            return BASE_OK;
        }
        at = end + 1;
    }
}

static int default_threads(void)
{
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

static base_status options_make(const arguments *a, eval_options *o)
{
    base_status st = BASE_OK;
    if (a->model == NULL || a->policies == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s is missing", a->model == NULL ? "--model" : "--kv");
    }
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
    BASE_TRY(st, out, check("--max-tokens", a->max_tokens, 0, INT64_MAX));
    BASE_TRY(st, out, check("--window", a->window, 2, MAX_WINDOW));
    BASE_TRY(st, out, check("--depths", a->depths, 1, EVAL_MAX_DEPTHS));
    BASE_TRY(st, out, check("--trials", a->trials, 1, 1000));
    BASE_TRY(st, out, check("--keys", a->keys, 1, 64));
    BASE_TRY(st, out, check("--seed", a->seed, 0, INT64_MAX));
    BASE_TRY(st, out, check("--threads", a->threads, 1, KERN_MAX_THREADS));
    o->max_tokens = a->max_tokens;
    o->window = a->window;
    o->logits = a->logits != 0;
    o->n_depths = a->depths;
    o->n_trials = a->trials;
    o->n_keys = a->keys;
    o->seed = (uint64_t)a->seed;
    o->n_threads = a->threads;
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

int command_eval(int argc, const char **argv)
{
    arguments a = {.window = 2048,
                   .depths = 5,
                   .trials = 1,
                   .keys = 1,
                   .seed = 1,
                   .threads = default_threads()};
    eval_options options = {.n_policies = 0};
    poptContext context = NULL;
    const struct poptOption table[] = {
        {"model", '\0', POPT_ARG_STRING, &a.model, 0, "model folder", "DIR"},
        {"kv", '\0', POPT_ARG_ARGV, &a.policies, 0,
         "policies to compare, ';' between them; may be repeated", "POLICY[;POLICY...]"},
        {"text", '\0', POPT_ARG_STRING, &a.text, 0, "perplexity on a text", "FILE"},
        {"max-tokens", '\0', POPT_ARG_LONGLONG, &a.max_tokens, 0,
         "of the text, from its start; 0: all", "N"},
        {"window", '\0', POPT_ARG_INT | POPT_ARGFLAG_SHOW_DEFAULT, &a.window, 0,
         "tokens of the text that are read in one context", "N"},
        {"logits", '\0', POPT_ARG_NONE, &a.logits, 0,
         "on the same text: logits against bf16, and attention logits by layer", NULL},
        {"needle", '\0', POPT_ARG_STRING, &a.needle, 0,
         "numbers to find in contexts of these lengths (tokens)", "LENGTH[,LENGTH...]"},
        {"depths", '\0', POPT_ARG_INT | POPT_ARGFLAG_SHOW_DEFAULT, &a.depths, 0,
         "evenly from the start to the end; 1: the middle", "N"},
        {"trials", '\0', POPT_ARG_INT | POPT_ARGFLAG_SHOW_DEFAULT, &a.trials, 0,
         "prompts of each length and depth", "N"},
        {"keys", '\0', POPT_ARG_INT | POPT_ARGFLAG_SHOW_DEFAULT, &a.keys, 0,
         "numbers hidden in a prompt; one is asked for", "N"},
        {"seed", '\0', POPT_ARG_LONGLONG | POPT_ARGFLAG_SHOW_DEFAULT, &a.seed, 0, "of the prompts",
         "N"},
        {"haystack", '\0', POPT_ARG_STRING, &a.haystack, 0,
         "text of the prompts (default: --text, else DIR/haystack.txt)", "FILE"},
        {"task", '\0', POPT_ARG_STRING, &a.task, 0,
         "own questions, a line each: {\"prompt\", \"answers\": [], \"scorer\": exact, contains or "
         "f1, \"max_new_tokens\"}",
         "FILE.jsonl"},
        {"threads", '\0', POPT_ARG_INT | POPT_ARGFLAG_SHOW_DEFAULT, &a.threads, 0, "of the CPU",
         "N"},
        {"json", '\0', POPT_ARG_NONE, &a.json, 0, "one JSON object", NULL},
        POPT_AUTOHELP POPT_TABLEEND};

    base_status st = options_parse(argc, argv, table,
                                   "eval --model DIR --kv POLICY[;POLICY...] [--text FILE "
                                   "[--logits]] [--needle LENGTH[,LENGTH...]] [--task FILE.jsonl]",
                                   &context);
    if (st != BASE_OK) {
        goto out;
    }
    if (poptPeekArg(context) != NULL) {
        st = BASE_FAIL(BASE_BAD_INPUT, "%s: options start with --", poptPeekArg(context));
        goto out;
    }
    BASE_TRY(st, out, options_make(&a, &options));
    st = measure(&options, a.json != 0);
out:
    if (context != NULL) {
        options_end(context, table);
    }
    return st == BASE_OK ? 0 : options_report("eval", st);
}
