#include "worker/eval/teacher.h"

#include <string.h>

typedef struct teacher {
    const eval_teacher_text *text;
    eval_run *const *runs;
    eval_teacher_result *results;
    int32_t n_runs;
    int32_t reference;
    int32_t chunk;
    int32_t n_vocab;
    float *logits;           /* [chunk][V], a mirror */
    float *reference_logits; /* [chunk][V], a mirror; NULL without a reference */
    int32_t *rows;           /* [chunk] 0, 1, .. */
    int32_t *inputs;         /* [n_prefix + window] */
} teacher;

/* Inputs at..at+n of the window whose targets are ids[0..n_targets), through one run. */
static base_status step(const teacher *t, int32_t run, int32_t at, int32_t n, const int32_t *ids,
                        int32_t n_targets)
{
    const bool is_reference = run == t->reference;
    float *logits = is_reference ? t->reference_logits : t->logits;
    kv_step_seq seq = {.slot = 0, .n_tokens = n};
    const base_status st = eval_run_step(t->runs[run], &seq, 1, t->inputs + at, t->rows, n, logits);
    for (int32_t i = 0; st == BASE_OK && i < n; i++) {
        const int32_t target = at + i + 1 - t->text->n_prefix;
        const float *row = logits + (int64_t)i * t->n_vocab;
        eval_teacher_result *r = &t->results[run];
        if (target < 0 || target >= n_targets) {
            continue;
        }
        r->nll += eval_logits_nll(row, t->n_vocab, ids[target]);
        r->n_tokens++;
        if (t->reference >= 0 && !is_reference) {
            eval_gap_add(&r->gap, t->reference_logits + (int64_t)i * t->n_vocab, row, t->n_vocab);
        }
    }
    return st;
}

static base_status window(const teacher *t, const int32_t *ids, int32_t n_targets)
{
    base_status st = BASE_OK;
    const int32_t n_prefix = t->text->n_prefix;
    const int32_t n_inputs = n_prefix + n_targets - 1;
    for (int32_t r = 0; r < t->n_runs; r++) {
        eval_run_clear(t->runs[r]);
    }
    if (n_prefix > 0) {
        memcpy(t->inputs, t->text->prefix, (size_t)n_prefix * sizeof *ids);
    }
    memcpy(t->inputs + n_prefix, ids, (size_t)n_targets * sizeof *ids);
    for (int32_t at = 0; at < n_inputs; at += t->chunk) {
        const int32_t n = n_inputs - at < t->chunk ? n_inputs - at : t->chunk;
        if (t->reference >= 0) { /* first: the others are compared with it */
            BASE_TRY(st, out, step(t, t->reference, at, n, ids, n_targets));
        }
        for (int32_t r = 0; r < t->n_runs; r++) {
            if (r != t->reference) {
                BASE_TRY(st, out, step(t, r, at, n, ids, n_targets));
            }
        }
    }
out:
    return st;
}

base_status eval_teacher_run(const eval_teacher_text *text, eval_run *const *runs, int32_t n_runs,
                             int32_t reference, eval_progress on_progress, void *ctx,
                             const base_alloc *mem, eval_teacher_result *results_out)
{
    base_status st = BASE_OK;
    const int32_t chunk = runs[0]->options.max_step_tokens;
    const int32_t n_vocab = runs[0]->model->config.n_vocab;
    const size_t n_bytes = (size_t)chunk * (size_t)n_vocab * sizeof(float);
    const base_alloc *mirror = kern_mirror(runs[0]->ctx);
    teacher t = {.text = text,
                 .runs = runs,
                 .n_runs = n_runs,
                 .reference = reference,
                 .chunk = chunk,
                 .n_vocab = n_vocab,
                 .logits = mirror->get(mirror->ctx, n_bytes),
                 .reference_logits = reference < 0 ? NULL : mirror->get(mirror->ctx, n_bytes),
                 .rows = mem->get(mem->ctx, (size_t)chunk * sizeof(int32_t)),
                 .inputs =
                     mem->get(mem->ctx, (size_t)(text->n_prefix + text->window) * sizeof(int32_t)),
                 .results = mem->get(mem->ctx, (size_t)n_runs * sizeof *results_out)};
    if (t.logits == NULL || (reference >= 0 && t.reference_logits == NULL) || t.rows == NULL ||
        t.inputs == NULL || t.results == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "logits of a step of %d tokens", chunk);
        goto out;
    }
    for (int32_t i = 0; i < chunk; i++) {
        t.rows[i] = i;
    }
    for (int64_t at = 0; at < text->n_ids; at += text->window) {
        const int64_t left = text->n_ids - at;
        const int32_t n = left < text->window ? (int32_t)left : text->window;
        BASE_TRY(st, out, window(&t, text->ids + at, n));
        if (on_progress != NULL) {
            BASE_TRY(st, out, on_progress(ctx, at + n, text->n_ids));
        }
    }
    memcpy(results_out, t.results, (size_t)n_runs * sizeof *results_out);
out:
    mirror->put(mirror->ctx, t.logits);
    mirror->put(mirror->ctx, t.reference_logits);
    mem->put(mem->ctx, t.rows);
    mem->put(mem->ctx, t.inputs);
    mem->put(mem->ctx, t.results);
    return st;
}
