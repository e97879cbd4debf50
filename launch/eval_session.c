#include "launch/eval_session.h"

#include "base/file.h"
#include "launch/eval_text.h"
#include "launch/process.h"
#include "worker/eval/needle.h"
#include "worker/eval/task.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CPU_STEP       512 /* tokens of a prompt that are read at once */
#define CUDA_STEP      4096
#define NEEDLE_MAX_NEW 16
#define NEEDLE_SLACK   64 /* tokens that a whole prompt may take beyond its pieces */

static void show(const eval_session *s, const char *what, const char *policy, int64_t done,
                 int64_t total)
{
    if (s->terminal) {
        (void)fprintf(stderr, "\r%s %s %" PRId64 "/%" PRId64 "\033[K%s", what, policy, done, total,
                      done == total ? "\r\033[K" : "");
    }
}

static base_status take_layer_bits(const eval_cache *cache, int32_t n_layers, double **bits_out)
{
    double *bits = base_heap.get(base_heap.ctx, (size_t)n_layers * sizeof *bits);
    if (bits == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "bits of %d layers", n_layers);
    }
    for (int32_t l = 0; l < n_layers; l++) {
        bits[l] = eval_cache_layer_k_bits(cache, l);
    }
    *bits_out = bits;
    return BASE_OK;
}

static base_status describe(eval_session *s)
{
    base_status st = BASE_OK;
    const model_config *c = &s->model->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    for (int32_t i = 0; i < s->options.n_policies && st == BASE_OK; i++) {
        eval_result *r = &s->results[i];
        eval_cache *cache = NULL;
        kv_policy_text(&s->options.policies[i], r->policy);
        BASE_TRY(st, out,
                 kv_calibration_open(s->options.policy_texts[i], s->options.model, s->model->hash,
                                     &shape, &base_heap, &s->calibrations[i]));
        BASE_TRY(st, out,
                 eval_cache_create(&s->options.policies[i], &shape, s->calibrations[i], &base_heap,
                                   &cache));
        r->bytes_per_token = eval_cache_bytes_per_token(cache);
        r->k_bits = eval_cache_k_bits(cache);
        r->v_bits = eval_cache_v_bits(cache);
        st = take_layer_bits(cache, c->n_layers, &r->layer_k_bits);
        eval_cache_destroy(cache);
    }
out:
    return st;
}

base_status eval_session_open(const eval_options *options, eval_session *s)
{
    base_status st = BASE_OK;
    *s = (eval_session){.options = *options, .terminal = isatty(STDERR_FILENO) == 1};
    BASE_TRY(st, out, model_open(options->model, &base_heap, &s->model));
    BASE_TRY(st, out, text_tokenizer_create(s->model->tokenizer_json, &base_heap, &s->tokenizer));
    BASE_TRY(st, out, kern_ctx_create_cpu(options->n_threads, &base_heap, &s->host));
    s->ctx = s->host;
    if (options->device == KERN_DEVICE_CUDA) {
        BASE_TRY(st, out, kern_ctx_create_cuda(0, &base_heap, &s->ctx));
    }
    BASE_TRY(st, out, comm_self_create(&base_heap, &s->ranks));
    s->results = base_heap.get(base_heap.ctx, (size_t)options->n_policies * sizeof *s->results);
    if (s->results == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "results of %d policies", options->n_policies);
        goto out;
    }
    BASE_TRY(st, out, describe(s));
    return BASE_OK;
out:
    eval_session_close(s);
    return st;
}

void eval_session_close(eval_session *s)
{
    for (int32_t i = 0; s->results != NULL && i < s->options.n_policies; i++) {
        base_heap.put(base_heap.ctx, s->results[i].layers);
        base_heap.put(base_heap.ctx, s->results[i].layer_k_bits);
    }
    for (int32_t i = 0; i < EVAL_MAX_POLICIES; i++) {
        kv_calibration_destroy(s->calibrations[i]);
    }
    base_heap.put(base_heap.ctx, s->results);
    comm_destroy(s->ranks);
    if (s->ctx != s->host) {
        kern_ctx_destroy(s->ctx);
    }
    kern_ctx_destroy(s->host);
    text_tokenizer_destroy(s->tokenizer);
    model_close(s->model);
    *s = (eval_session){.model = NULL};
}

double eval_session_depth(const eval_options *options, int32_t i)
{
    return options->n_depths == 1 ? 0.5 : (double)i / (options->n_depths - 1);
}

static base_status text_progress(void *ctx, int64_t done, int64_t total)
{
    show(ctx, "text", "tokens", done, total);
    return BASE_OK;
}

base_status eval_session_text(eval_session *s)
{
    eval_text_result *results = NULL;
    const eval_options *o = &s->options;
    base_status st = BASE_OK;

    results = base_heap.get(base_heap.ctx, (size_t)o->n_policies * sizeof *results);
    if (results == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "results of %d policies", o->n_policies);
        goto out;
    }
    BASE_TRY(st, out, eval_text_measure(s, text_progress, s, results));
    for (int32_t i = 0; i < o->n_policies; i++) {
        s->results[i].teacher = results[i].teacher;
        s->results[i].layers = results[i].layers;
    }
out:
    base_heap.put(base_heap.ctx, results);
    return st;
}

/* A run for prompts that are read once and continued. */
static base_status open_run(const eval_session *s, int32_t policy, int32_t max_context,
                            eval_run **run_out)
{
    const eval_run_options options = {.max_step_tokens = s->ctx == s->host ? CPU_STEP : CUDA_STEP,
                                      .max_samples = 1,
                                      .max_context = max_context,
                                      .n_slots = 1,
                                      .calibration = s->calibrations[policy]};
    return eval_run_create(s->model, &s->options.policies[policy], s->ctx, s->ranks, &options,
                           &base_heap, run_out);
}

/* The greedy reply, as text without special tokens. */
static base_status reply_to(const eval_session *s, eval_run *run, const text_ids *prompt,
                            int32_t max_new, base_bytes *text_out)
{
    base_status st = BASE_OK;
    int32_t n = 0;
    int32_t *ids = base_heap.get(base_heap.ctx, (size_t)max_new * sizeof *ids);
    if (ids == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%d new tokens", max_new);
        goto out;
    }
    BASE_TRY(st, out,
             eval_run_generate(run, prompt->ids, (int32_t)prompt->n_ids, max_new, ids, &n));
    st = text_decode(s->tokenizer, ids, (size_t)n, true, text_out);
out:
    base_heap.put(base_heap.ctx, ids);
    return st;
}

static base_status count_tokens(void *ctx, base_view text, int32_t *n_out)
{
    const text_encode_options options = {.add_special = false};
    text_ids ids;
    text_ids_init(&ids, &base_heap);
    const base_status st = text_encode(ctx, text, options, &ids);
    if (st == BASE_OK) {
        *n_out = (int32_t)ids.n_ids;
    }
    text_ids_reset(&ids);
    return st;
}

/* A question as every policy gets it. */
typedef struct question {
    text_ids ids;
    char number[sizeof((eval_needle *)0)->number];
} question;

/* ids is initialised. */
static base_status make_question(const eval_session *s, base_view haystack, int32_t length,
                                 double depth, uint64_t stream, question *q)
{
    base_status st = BASE_OK;
    const text_encode_options encoding = {.add_special = true};
    const eval_needle_options needle_options = {.haystack = haystack,
                                                .n_tokens = length,
                                                .depth = depth,
                                                .n_keys = s->options.n_keys,
                                                .seed = s->options.seed,
                                                .stream = stream};
    eval_needle needle = {.number = ""};

    base_bytes_init(&needle.prompt, 0, &base_heap);
    BASE_TRY(st, out,
             eval_needle_make(&needle_options, count_tokens, s->tokenizer, &base_heap, &needle));
    memcpy(q->number, needle.number, sizeof q->number);
    st = text_encode(s->tokenizer, base_bytes_view(&needle.prompt), encoding, &q->ids);
out:
    eval_needle_reset(&needle);
    return st;
}

static base_status ask(const eval_session *s, eval_run *run, const question *q, bool *right_out)
{
    base_bytes reply;
    base_bytes_init(&reply, EVAL_MAX_TEXT, &base_heap);
    const base_status st = reply_to(s, run, &q->ids, NEEDLE_MAX_NEW, &reply);
    *right_out = st == BASE_OK && eval_needle_matches(q->number, base_bytes_view(&reply));
    base_bytes_reset(&reply);
    return st;
}

static base_status open_haystack(const eval_session *s, base_map *map_out)
{
    char path[PROCESS_MAX_PATH];
    const eval_options *o = &s->options;
    const char *given = o->haystack != NULL ? o->haystack : o->text;
    if (given != NULL) {
        return base_map_open(given, map_out);
    }
    if ((size_t)snprintf(path, sizeof path, "%s/haystack.txt", o->model) >= sizeof path) {
        return BASE_FAIL(BASE_BAD_INPUT, "--model is %zu bytes long, at most %d", strlen(o->model),
                         PROCESS_MAX_PATH - 16);
    }
    const base_status st = base_map_open(path, map_out);
    return st != BASE_NOT_FOUND
               ? st
               : BASE_FAIL(BASE_NOT_FOUND, "--needle needs --haystack FILE: %s is not there", path);
}

/* All questions through one policy. */
static base_status ask_all(eval_session *s, int32_t policy, const question *questions,
                           int32_t n_asked, int32_t max_context)
{
    base_status st = BASE_OK;
    const eval_options *o = &s->options;
    eval_result *r = &s->results[policy];
    eval_run *run = NULL;

    BASE_TRY(st, out, open_run(s, policy, max_context, &run));
    for (int32_t i = 0; i < n_asked; i++) {
        bool right = false;
        show(s, "needle", r->policy, i, n_asked);
        BASE_TRY(st, out, ask(s, run, &questions[i], &right));
        r->right[i / o->n_trials / o->n_depths][i / o->n_trials % o->n_depths] += right;
    }
    show(s, "needle", r->policy, n_asked, n_asked);
out:
    eval_run_destroy(run);
    return st;
}

base_status eval_session_needle(eval_session *s)
{
    base_status st = BASE_OK;
    const eval_options *o = &s->options;
    const int32_t n_asked = o->n_lengths * o->n_depths * o->n_trials;
    base_map haystack = {NULL, 0};
    question *questions = NULL;
    int32_t longest = 0;

    BASE_TRY(st, out, open_haystack(s, &haystack));
    const base_view text = {(const char *)haystack.bytes, haystack.n_bytes};
    for (int32_t i = 0; i < o->n_lengths; i++) {
        longest = o->lengths[i] > longest ? o->lengths[i] : longest;
    }
    if (longest > s->model->config.max_context) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--needle %d: the model's context is %" PRId64 " tokens",
                       longest, s->model->config.max_context);
        goto out;
    }
    questions = base_heap.get(base_heap.ctx, (size_t)n_asked * sizeof *questions);
    if (questions == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%d questions", n_asked);
        goto out;
    }
    for (int32_t i = 0; i < n_asked; i++) {
        text_ids_init(&questions[i].ids, &base_heap);
    }
    for (int32_t i = 0; i < n_asked; i++) {
        const int32_t depth = i / o->n_trials % o->n_depths;
        BASE_TRY(st, out,
                 make_question(s, text, o->lengths[i / o->n_trials / o->n_depths],
                               eval_session_depth(o, depth), (uint64_t)i, &questions[i]));
    }
    for (int32_t p = 0; p < o->n_policies; p++) {
        BASE_TRY(st, out,
                 ask_all(s, p, questions, n_asked, longest + NEEDLE_SLACK + NEEDLE_MAX_NEW));
    }
out:
    for (int32_t i = 0; questions != NULL && i < n_asked; i++) {
        text_ids_reset(&questions[i].ids);
    }
    base_heap.put(base_heap.ctx, questions);
    base_map_close(&haystack);
    return st;
}

/* Every item through one policy.  prompts [n_items]. */
static base_status answer_all(eval_session *s, int32_t policy, const eval_task *task,
                              const text_ids *prompts, int32_t max_context)
{
    base_status st = BASE_OK;
    eval_result *r = &s->results[policy];
    eval_run *run = NULL;
    double sum = 0.0;
    base_bytes reply;

    base_bytes_init(&reply, EVAL_MAX_TEXT, &base_heap);
    BASE_TRY(st, out, open_run(s, policy, max_context, &run));
    for (int32_t i = 0; i < task->n_items; i++) {
        const eval_task_item *item = &task->items[i];
        show(s, "task", r->policy, i, task->n_items);
        base_bytes_drop_front(&reply, reply.n_bytes);
        BASE_TRY(st, out, reply_to(s, run, &prompts[i], item->max_new_tokens, &reply));
        sum += eval_score(item->scorer, base_bytes_view(&reply), item->answers, item->n_answers);
    }
    show(s, "task", r->policy, task->n_items, task->n_items);
    r->task_score = sum / task->n_items;
out:
    eval_run_destroy(run);
    base_bytes_reset(&reply);
    return st;
}

/* ids_out [n_items], each initialised; *max_context_out holds the longest prompt and its reply. */
static base_status encode_prompts(const eval_session *s, const eval_task *task, text_ids *ids_out,
                                  int32_t *max_context_out)
{
    base_status st = BASE_OK;
    const text_encode_options encoding = {.add_special = true, .parse_special = true};
    int64_t longest = 0;
    for (int32_t i = 0; i < task->n_items; i++) {
        const eval_task_item *item = &task->items[i];
        BASE_TRY(st, out, text_encode(s->tokenizer, item->prompt, encoding, &ids_out[i]));
        const int64_t n = (int64_t)ids_out[i].n_ids + item->max_new_tokens;
        if (ids_out[i].n_ids == 0 || n > s->model->config.max_context) {
            st = BASE_FAIL(BASE_BAD_FILE,
                           "%s line %d: field 'prompt' is %zu tokens and the reply up to %d; at "
                           "least 1, and together at most %" PRId64,
                           s->options.task, item->line, ids_out[i].n_ids, item->max_new_tokens,
                           s->model->config.max_context);
            goto out;
        }
        longest = n > longest ? n : longest;
    }
    *max_context_out = (int32_t)longest;
out:
    return st;
}

base_status eval_session_task(eval_session *s)
{
    base_status st = BASE_OK;
    base_map file = {NULL, 0};
    eval_task *task = NULL;
    text_ids *prompts = NULL;
    int32_t max_context = 0;

    BASE_TRY(st, out, base_map_open(s->options.task, &file));
    const base_view text = {(const char *)file.bytes, file.n_bytes};
    BASE_TRY(st, out, eval_task_parse(text, s->options.task, &base_heap, &task));
    s->n_items = task->n_items;
    prompts = base_heap.get(base_heap.ctx, (size_t)task->n_items * sizeof *prompts);
    if (prompts == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%d prompts", task->n_items);
        goto out;
    }
    for (int32_t i = 0; i < task->n_items; i++) {
        text_ids_init(&prompts[i], &base_heap);
    }
    BASE_TRY(st, out, encode_prompts(s, task, prompts, &max_context));
    for (int32_t p = 0; p < s->options.n_policies; p++) {
        BASE_TRY(st, out, answer_all(s, p, task, prompts, max_context));
    }
out:
    for (int32_t i = 0; prompts != NULL && i < task->n_items; i++) {
        text_ids_reset(&prompts[i]);
    }
    base_heap.put(base_heap.ctx, prompts);
    eval_task_destroy(task);
    base_map_close(&file);
    return st;
}
