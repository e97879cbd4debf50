#include "kernels/comm/comm_merge.h"
#include "launch/client.h"
#include "launch/commands.h"
#include "launch/local_group.h"
#include "launch/options.h"
#include "launch/prompt.h"
#include "launch/report.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define READY_TIMEOUT_MS 600000

static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

typedef struct generate_options {
    const char *connect, *model, *device, *merge, *weights, *kv, *rope_scaling;
    const char *prompt, *prompt_file, *prompt_ids;
    const char *log;
    int32_t ranks, prefill_chunk, max_new_tokens, top_k;
    int64_t max_context, seed, timeout_s;
    double temperature, top_p, min_p, repetition_penalty;
    const char **stops;
    bool share_gpu, ignore_eos, json, stats, progress;
} generate_options;

#define NOT_GIVEN     (-1) /* outside the limits of every number below */
#define MAX_TIMEOUT_S (365 * 24 * 3600)

/* Options that were given. */
static void fill_request(const generate_options *o, const prompt *p, base_view *stops,
                         inference_generate_request *r)
{
    *r = (inference_generate_request){.has_text = p->has_text,
                                      .text = p->text,
                                      .prompt_ids = p->ids,
                                      .n_prompt_ids = p->n_ids,
                                      .ignore_eos = o->ignore_eos};
    if (o->temperature != NOT_GIVEN) {
        r->given |= INFERENCE_GIVEN_TEMPERATURE;
        r->sampling.temperature = (float)o->temperature;
    }
    if (o->top_p != NOT_GIVEN) {
        r->given |= INFERENCE_GIVEN_TOP_P;
        r->sampling.top_p = (float)o->top_p;
    }
    if (o->min_p != NOT_GIVEN) {
        r->given |= INFERENCE_GIVEN_MIN_P;
        r->sampling.min_p = (float)o->min_p;
    }
    if (o->repetition_penalty != NOT_GIVEN) {
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

    report_init(&shown, !o->json, o->progress || terminal, terminal);
    fill_request(o, p, stops, &request);
    if (o->model != NULL) {
        const local_group_options options = {.model = o->model,
                                             .kv = o->kv,
                                             .device = o->device,
                                             .merge = o->merge,
                                             .weights = o->weights,
                                             .share_gpu = o->share_gpu,
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
        st = client_generate(channel, group, &request, o->timeout_s * 1000, report_take, &shown,
                             &stop);
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

static const base_option table[] = {
    {"connect", 0, "HOST:PORT", "a running coordinator",
     BASE_OPTION_TEXT(generate_options, connect)},
    {"model", 0, "DIR", "or a model folder to serve for this call",
     BASE_OPTION_TEXT(generate_options, model)},
    {"ranks", 0, "N", "with --model: MPI ranks",
     BASE_OPTION_I32(generate_options, ranks, 1, LOCAL_MAX_RANKS)},
    {"device", 0, "DEVICE", "with --model: cpu or cuda (GPUs if there is one for each rank)",
     BASE_OPTION_CHOICE(generate_options, device, "cpu, cuda")},
    {"merge", 0, "TRANSPORT",
     "with --model: how ranks exchange partials, mpi, nccl-ag, nccl-ar, nccl-a2a or lsa (auto)",
     BASE_OPTION_CHOICE(generate_options, merge, COMM_MERGE_CHOICES)},
    {"weights", 0, "LAYOUT", "with --model: replicated, or split: each rank holds its share (auto)",
     BASE_OPTION_CHOICE(generate_options, weights, "auto, replicated, split")},
    {"share-gpu", 0, NULL, "with --model: ranks may share a GPU: slow, for tests",
     BASE_OPTION_FLAG(generate_options, share_gpu)},
    {"kv", 0, "POLICY", "with --model: how the cache is stored",
     BASE_OPTION_TEXT(generate_options, kv)},
    {"rope-scaling", 0, "JSON|none", "with --model: instead of config.json's rope_scaling",
     BASE_OPTION_TEXT(generate_options, rope_scaling)},
    {"max-context", 0, "N", "with --model: tokens (what fits)",
     BASE_OPTION_I64(generate_options, max_context, 1, INT64_MAX)},
    {"prefill-chunk", 0, "N", "with --model: tokens a step (512)",
     BASE_OPTION_I32(generate_options, prefill_chunk, 1, INT32_MAX)},
    {"log", 0, "FILE", "with --model: where its programs log",
     BASE_OPTION_TEXT(generate_options, log)},
    {"prompt", 0, "TEXT", "the prompt", BASE_OPTION_TEXT_OR_EMPTY(generate_options, prompt)},
    {"prompt-file", 0, "FILE", "or a file that holds it",
     BASE_OPTION_TEXT(generate_options, prompt_file)},
    {"prompt-ids", 0, "IDS", "or token ids: a JSON array or @FILE",
     BASE_OPTION_TEXT(generate_options, prompt_ids)},
    {"max-new-tokens", 0, "N", "at most so many (the model's)",
     BASE_OPTION_I32(generate_options, max_new_tokens, 1, INFERENCE_MAX_NEW_TOKENS)},
    {"temperature", 0, "T", "0 is greedy (the model's)",
     BASE_OPTION_REAL(generate_options, temperature, 0, 100)},
    {"top-p", 0, "P", "(0, 1]", BASE_OPTION_REAL_ABOVE(generate_options, top_p, 0, 1)},
    {"top-k", 0, "K", "0 is off", BASE_OPTION_I32(generate_options, top_k, 0, INT32_MAX)},
    {"min-p", 0, "P", "[0, 1]", BASE_OPTION_REAL(generate_options, min_p, 0, 1)},
    {"repetition-penalty", 0, "R", "1 is off",
     BASE_OPTION_REAL_ABOVE(generate_options, repetition_penalty, 0, 100)},
    {"seed", 0, "S", "of the sampler (drawn)",
     BASE_OPTION_I64(generate_options, seed, 0, INT64_MAX)},
    {"stop", 0, "TEXT", "stop string, may be repeated", BASE_OPTION_LIST(generate_options, stops)},
    {"ignore-eos", 0, NULL, "go on after end-of-sequence",
     BASE_OPTION_FLAG(generate_options, ignore_eos)},
    {"timeout", 0, "S", "seconds for the whole call",
     BASE_OPTION_I64(generate_options, timeout_s, 1, MAX_TIMEOUT_S)},
    {"json", 0, NULL, "one JSON object instead of text", BASE_OPTION_FLAG(generate_options, json)},
    {"stats", 0, NULL, "a table of cache and times on stderr",
     BASE_OPTION_FLAG(generate_options, stats)},
    {"progress", 0, NULL, "prefill progress also without a terminal",
     BASE_OPTION_FLAG(generate_options, progress)},
};
static const base_command command = {"ropewalk generate",
                                     "--connect HOST:PORT | --model DIR, --prompt TEXT [options]",
                                     BASE_OPTIONS(table)};

int command_generate(int argc, const char **argv)
{
    generate_options o = {.ranks = 1,
                          .kv = "bf16",
                          .max_new_tokens = NOT_GIVEN,
                          .top_k = NOT_GIVEN,
                          .seed = NOT_GIVEN,
                          .timeout_s = 3600,
                          .temperature = NOT_GIVEN,
                          .top_p = NOT_GIVEN,
                          .min_p = NOT_GIVEN,
                          .repetition_penalty = NOT_GIVEN};
    base_status st = BASE_OK;
    int exit_status = 0;
    base_options line;
    prompt p = {.has_text = false};

    if (!options_open(&command, argc, argv, &o, &line, &exit_status)) {
        goto out;
    }
    const struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);

    BASE_TRY(st, out, check(&o));
    BASE_TRY(st, out, prompt_read(o.prompt, o.prompt_file, o.prompt_ids, &base_heap, &p));
    st = run(&o, &p);
out:
    if (st != BASE_OK) {
        exit_status = options_report(&command, st);
        exit_status = stop ? EXIT_INTERRUPTED : exit_status;
    }
    prompt_reset(&p);
    base_options_reset(&line);
    return exit_status;
}
