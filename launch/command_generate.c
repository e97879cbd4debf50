#include "launch/client.h"
#include "launch/commands.h"
#include "launch/local_group.h"
#include "launch/options.h"
#include "launch/prompt.h"
#include "launch/report.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define READY_TIMEOUT_MS 600000

static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

typedef struct generate_options {
    char *connect, *model, *device, *kv, *rope_scaling;
    char *prompt, *prompt_file, *prompt_ids;
    char *log;
    int ranks, prefill_chunk, max_new_tokens, top_k;
    long long max_context, seed, timeout_s;
    double temperature, top_p, min_p, repetition_penalty;
    char **stops;
    int ignore_eos, json, stats, progress;
} generate_options;

#define NOT_GIVEN (-1)

/* Options that were given; the server checks the values. */
static void fill_request(const generate_options *o, const prompt *p, base_view *stops,
                         inference_generate_request *r)
{
    *r = (inference_generate_request){.has_text = p->has_text,
                                      .text = p->text,
                                      .prompt_ids = p->ids,
                                      .n_prompt_ids = p->n_ids,
                                      .ignore_eos = o->ignore_eos != 0};
    if (!isnan(o->temperature)) {
        r->given |= INFERENCE_GIVEN_TEMPERATURE;
        r->sampling.temperature = (float)o->temperature;
    }
    if (!isnan(o->top_p)) {
        r->given |= INFERENCE_GIVEN_TOP_P;
        r->sampling.top_p = (float)o->top_p;
    }
    if (!isnan(o->min_p)) {
        r->given |= INFERENCE_GIVEN_MIN_P;
        r->sampling.min_p = (float)o->min_p;
    }
    if (!isnan(o->repetition_penalty)) {
        r->given |= INFERENCE_GIVEN_REPETITION_PENALTY;
        r->sampling.repetition_penalty = (float)o->repetition_penalty;
    }
    if (o->top_k != NOT_GIVEN) {
        r->given |= INFERENCE_GIVEN_TOP_K;
        r->sampling.top_k = o->top_k;
    }
    if (o->seed != NOT_GIVEN) {
        r->given |= INFERENCE_GIVEN_SEED;
        r->sampling.seed = (uint64_t)o->seed;
    }
    if (o->max_new_tokens != NOT_GIVEN) {
        r->given |= INFERENCE_GIVEN_MAX_NEW_TOKENS;
        r->max_new_tokens = o->max_new_tokens;
    }
    for (; o->stops != NULL && o->stops[r->n_stops] != NULL; r->n_stops++) {
        stops[r->n_stops] = base_view_of(o->stops[r->n_stops]); /* check() has counted them */
    }
    r->stops = stops;
}

static base_status check(const generate_options *o)
{
    if ((o->connect != NULL) == (o->model != NULL)) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s --connect and --model given, exactly one is needed",
                         o->connect != NULL ? "both" : "neither");
    }
    if (o->device != NULL && strcmp(o->device, "cpu") != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "--device is '%s', allowed cpu", o->device);
    }
    if (o->timeout_s < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "--timeout is %lld, allowed 1 and more", o->timeout_s);
    }
    if (o->seed < NOT_GIVEN) {
        return BASE_FAIL(BASE_BAD_INPUT, "--seed is %lld, allowed 0 and more", o->seed);
    }
    size_t n_stops = 0;
    while (o->stops != NULL && o->stops[n_stops] != NULL) {
        n_stops++;
    }
    if (n_stops > INFERENCE_MAX_STOPS) {
        return BASE_FAIL(BASE_BAD_INPUT, "--stop is given %zu times, at most %d", n_stops,
                         INFERENCE_MAX_STOPS);
    }
    return BASE_OK;
}

static base_status run(const generate_options *o, const prompt *p)
{
    base_status st = BASE_OK;
    local_group *group = NULL;
    rpc_channel *channel = NULL;
    report shown;
    inference_generate_request request;
    base_view stops[INFERENCE_MAX_STOPS];
    const char *target = o->connect;
    const bool terminal = isatty(STDERR_FILENO) != 0;

    report_init(&shown, o->json == 0, o->progress != 0 || terminal, terminal);
    fill_request(o, p, stops, &request);
    if (o->model != NULL) {
        const local_group_options options = {.model = o->model,
                                             .kv = o->kv != NULL ? o->kv : "bf16",
                                             .rope_scaling = o->rope_scaling,
                                             .listen = "127.0.0.1:0",
                                             .ranks = o->ranks,
                                             .max_context = o->max_context,
                                             .prefill_chunk = o->prefill_chunk,
                                             .log_path = o->log,
                                             .log_level = o->log != NULL ? "info" : "warn"};
        BASE_TRY(st, out, local_group_open(&options, &group));
        target = local_group_target(group);
    }
    rpc_init();
    st = rpc_channel_create(target, &channel);
    if (st == BASE_OK && group != NULL) {
        st = client_wait_ready(channel, target, group, READY_TIMEOUT_MS, &stop);
    }
    if (st == BASE_OK) {
        st = client_generate(channel, &request, o->timeout_s * 1000, report_take, &shown, &stop);
    }
    rpc_channel_destroy(channel);
    rpc_shutdown();
    if (st != BASE_OK) {
        goto out;
    }
    if (!shown.has_finished || shown.failed) {
        st = BASE_FAIL(BASE_IO, "the stream ended without its last message");
        goto out;
    }
    if (o->json) {
        st = report_print_json(&shown);
    } else {
        (void)printf("\n");
        if (o->stats) {
            report_print_table(&shown);
        }
    }
out:
    local_group_close(group);
    report_reset(&shown);
    return st;
}

int command_generate(int argc, const char **argv)
{
    generate_options o = {.ranks = 1,
                          .max_new_tokens = NOT_GIVEN,
                          .top_k = NOT_GIVEN,
                          .seed = NOT_GIVEN,
                          .timeout_s = 3600,
                          .temperature = NAN,
                          .top_p = NAN,
                          .min_p = NAN,
                          .repetition_penalty = NAN};
    const struct poptOption table[] = {
        {"connect", '\0', POPT_ARG_STRING, &o.connect, 0, "a running coordinator", "HOST:PORT"},
        {"model", '\0', POPT_ARG_STRING, &o.model, 0, "or a model folder to serve for this call",
         "DIR"},
        {"ranks", '\0', POPT_ARG_INT, &o.ranks, 0, "with --model: MPI ranks (1)", "N"},
        {"device", '\0', POPT_ARG_STRING, &o.device, 0, "with --model: cpu (default)", "DEVICE"},
        {"kv", '\0', POPT_ARG_STRING, &o.kv, 0, "with --model: KV cache policy (bf16)", "POLICY"},
        {"rope-scaling", '\0', POPT_ARG_STRING, &o.rope_scaling, 0,
         "with --model: instead of config.json's rope_scaling", "JSON|none"},
        {"max-context", '\0', POPT_ARG_LONGLONG, &o.max_context, 0,
         "with --model: tokens (what fits)", "N"},
        {"prefill-chunk", '\0', POPT_ARG_INT, &o.prefill_chunk, 0,
         "with --model: tokens a step (512)", "N"},
        {"log", '\0', POPT_ARG_STRING, &o.log, 0, "with --model: where its programs log", "FILE"},
        {"prompt", '\0', POPT_ARG_STRING, &o.prompt, 0, "the prompt", "TEXT"},
        {"prompt-file", '\0', POPT_ARG_STRING, &o.prompt_file, 0, "or a file that holds it",
         "FILE"},
        {"prompt-ids", '\0', POPT_ARG_STRING, &o.prompt_ids, 0,
         "or token ids: a JSON array or @FILE", "IDS"},
        {"max-new-tokens", '\0', POPT_ARG_INT, &o.max_new_tokens, 0,
         "at most so many (the model's)", "N"},
        {"temperature", '\0', POPT_ARG_DOUBLE, &o.temperature, 0, "0 is greedy (the model's)", "T"},
        {"top-p", '\0', POPT_ARG_DOUBLE, &o.top_p, 0, "(0, 1]", "P"},
        {"top-k", '\0', POPT_ARG_INT, &o.top_k, 0, "0 is off", "K"},
        {"min-p", '\0', POPT_ARG_DOUBLE, &o.min_p, 0, "[0, 1]", "P"},
        {"repetition-penalty", '\0', POPT_ARG_DOUBLE, &o.repetition_penalty, 0, "1 is off", "R"},
        {"seed", '\0', POPT_ARG_LONGLONG, &o.seed, 0, "of the sampler (drawn)", "S"},
        {"stop", '\0', POPT_ARG_ARGV, &o.stops, 0, "stop string, may be repeated", "TEXT"},
        {"ignore-eos", '\0', POPT_ARG_NONE, &o.ignore_eos, 0, "go on after end-of-sequence", NULL},
        {"timeout", '\0', POPT_ARG_LONGLONG, &o.timeout_s, 0, "seconds for the whole call (3600)",
         "S"},
        {"json", '\0', POPT_ARG_NONE, &o.json, 0, "one JSON object instead of text", NULL},
        {"stats", '\0', POPT_ARG_NONE, &o.stats, 0, "a table of cache and times on stderr", NULL},
        {"progress", '\0', POPT_ARG_NONE, &o.progress, 0,
         "prefill progress also without a terminal", NULL},
        POPT_AUTOHELP POPT_TABLEEND};
    poptContext context = NULL;
    prompt p = {.has_text = false};

    base_status st = options_parse(argc, argv, table, "generate [options]", &context);
    if (st != BASE_OK) {
        return options_report("generate", st);
    }
    const struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);

    BASE_TRY(st, out, check(&o));
    BASE_TRY(st, out, prompt_read(o.prompt, o.prompt_file, o.prompt_ids, &base_heap, &p));
    st = run(&o, &p);
out:
    prompt_reset(&p);
    options_end(context, table);
    if (st == BASE_OK) {
        return 0;
    }
    (void)options_report("generate", st);
    return stop ? EXIT_INTERRUPTED : st == BASE_BAD_INPUT ? EXIT_USAGE : EXIT_FAILED;
}
