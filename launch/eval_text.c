#include "launch/eval_text.h"

#include "base/file.h"

#include <string.h>

#define MAX_RUNS     (EVAL_MAX_POLICIES + 1) /* one more: the reference */
#define LOGIT_FLOATS (16 << 20)              /* of one step: 64 MB */
#define MAX_STEP     512
#define MIN_STEP     KERN_BLOCK_TOKENS

typedef struct text_job {
    eval_session *s;
    text_ids ids;
    text_ids prefix;
    eval_run *runs[MAX_RUNS];
    int32_t n_runs;
    int32_t reference; /* index into runs, or -1 */
    eval_attn_error *errors[EVAL_MAX_POLICIES];
} text_job;

/* Tokens of the text, cut to max_tokens, what stands in front of a text, and the bytes of it all. */
static base_status read_text(text_job *job)
{
    base_status st = BASE_OK;
    eval_session *s = job->s;
    const text_encode_options plain = {.add_special = false};
    const text_encode_options special = {.add_special = true};
    const int64_t max_tokens = s->options.max_tokens;
    const base_view nothing = {NULL, 0};
    base_map file = {NULL, 0};
    base_bytes cut;

    base_bytes_init(&cut, EVAL_MAX_TEXT, &base_heap);
    BASE_TRY(st, out, base_map_open(s->options.text, &file));
    const base_view text = {(const char *)file.bytes, file.n_bytes};
    BASE_TRY(st, out, text_encode(s->tokenizer, text, plain, &job->ids));
    BASE_TRY(st, out, text_encode(s->tokenizer, nothing, special, &job->prefix));
    s->text_tokens = (int64_t)job->ids.n_ids;
    s->text_bytes = (int64_t)file.n_bytes;
    if (max_tokens > 0 && max_tokens < s->text_tokens) {
        s->text_tokens = max_tokens;
        BASE_TRY(st, out, text_decode(s->tokenizer, job->ids.ids, (size_t)max_tokens, false, &cut));
        s->text_bytes = (int64_t)cut.n_bytes;
    }
    if (s->text_tokens == 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--text %s is empty", s->options.text);
    }
out:
    base_bytes_reset(&cut);
    base_map_close(&file);
    return st;
}

/* Whole blocks, so that every step begins at one; one block where a policy has no pages (run.h); as many
 * logits as fit the bound. */
static int32_t step_tokens(const eval_session *s)
{
    const model_config *config = &s->model->config;
    for (int32_t i = 0; i < s->options.n_policies; i++) {
        if (s->options.policies[i].paper != 0) {
            return MIN_STEP;
        }
    }
    const int32_t n = LOGIT_FLOATS / config->n_vocab / MIN_STEP * MIN_STEP;
    return n < MIN_STEP ? MIN_STEP : n > MAX_STEP ? MAX_STEP : n;
}

static base_status add_run(text_job *job, const kv_policy *policy,
                           const kv_calibration *calibration)
{
    const eval_session *s = job->s;
    const int32_t chunk = step_tokens(s);
    const eval_run_options options = {
        .max_step_tokens = chunk,
        .max_samples = chunk,
        .max_context = s->options.window + (int32_t)job->prefix.n_ids,
        .n_slots = 1,
        .calibration = calibration,
    };
    const base_status st = eval_run_create(s->model, policy, s->ctx, s->ranks, &options, &base_heap,
                                           &job->runs[job->n_runs]);
    job->n_runs += st == BASE_OK;
    return st;
}

static base_status see_all(void *ctx, const forward_observation *seen)
{
    const text_job *job = ctx;
    base_status st = BASE_OK;
    for (int32_t i = 0; i < job->s->options.n_policies && st == BASE_OK; i++) {
        st = eval_attn_error_see(job->errors[i], seen);
    }
    return st;
}

static base_status open_runs(text_job *job)
{
    base_status st = BASE_OK;
    const eval_session *s = job->s;
    const eval_options *o = &s->options;
    kv_policy bf16;

    job->reference = -1;
    BASE_TRY(st, out, kv_policy_parse("bf16", &bf16));
    for (int32_t i = 0; i < o->n_policies; i++) {
        BASE_TRY(st, out, add_run(job, &o->policies[i], s->calibrations[i]));
        if (o->logits && o->policies[i].kind == bf16.kind) {
            job->reference = i;
        }
    }
    if (!o->logits) {
        goto out;
    }
    if (job->reference < 0) {
        job->reference = job->n_runs;
        BASE_TRY(st, out, add_run(job, &bf16, NULL));
    }
    for (int32_t i = 0; i < o->n_policies; i++) {
        BASE_TRY(st, out,
                 eval_attn_error_create(&s->model->config, job->runs[i]->cache, s->host,
                                        job->runs[i]->options.max_context, &base_heap,
                                        &job->errors[i]));
    }
    forward_set_observer(job->runs[job->reference]->forward, see_all, job);
out:
    return st;
}

static base_status take_layers(const text_job *job, eval_text_result *results)
{
    const int32_t n_layers = job->s->model->config.n_layers;
    for (int32_t i = 0; job->reference >= 0 && i < job->s->options.n_policies; i++) {
        eval_attn_mae *layers = base_heap.get(base_heap.ctx, (size_t)n_layers * sizeof *layers);
        if (layers == NULL) {
            while (i-- > 0) {
                base_heap.put(base_heap.ctx, results[i].layers);
            }
            return BASE_FAIL(BASE_NO_MEMORY, "errors of %d layers", n_layers);
        }
        for (int32_t l = 0; l < n_layers; l++) {
            layers[l] = eval_attn_error_layer(job->errors[i], l);
        }
        results[i].layers = layers;
    }
    return BASE_OK;
}

base_status eval_text_measure(eval_session *s, eval_progress on_progress, void *ctx,
                              eval_text_result *results_out)
{
    base_status st = BASE_OK;
    text_job job = {.s = s};
    eval_teacher_result teachers[MAX_RUNS];

    text_ids_init(&job.ids, &base_heap);
    text_ids_init(&job.prefix, &base_heap);
    BASE_TRY(st, out, read_text(&job));
    BASE_TRY(st, out, open_runs(&job));
    const eval_teacher_text text = {
        .ids = job.ids.ids,
        .n_ids = s->text_tokens,
        .prefix = job.prefix.ids,
        .n_prefix = (int32_t)job.prefix.n_ids,
        .window = s->options.window,
    };
    BASE_TRY(st, out,
             eval_teacher_run(&text, job.runs, job.n_runs, job.reference, on_progress, ctx,
                              &base_heap, teachers));
    for (int32_t i = 0; i < s->options.n_policies; i++) {
        results_out[i] = (eval_text_result){.teacher = teachers[i]};
    }
    st = take_layers(&job, results_out);
out:
    for (int32_t i = 0; i < s->options.n_policies; i++) {
        eval_attn_error_destroy(job.errors[i]);
    }
    for (int32_t i = 0; i < job.n_runs; i++) {
        eval_run_destroy(job.runs[i]);
    }
    text_ids_reset(&job.ids);
    text_ids_reset(&job.prefix);
    return st;
}
