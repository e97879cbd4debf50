/* worker/eval/teacher.h - several policies read the same text, each token given all before it.
 *
 * The text is cut into windows; every window starts anew from the prefix (what the model puts in front of a
 * text, <|bos|>) and its own beginning.  Without a prefix the first token of a window is not predicted. */
#ifndef WORKER_EVAL_TEACHER_H
#define WORKER_EVAL_TEACHER_H

#include "worker/eval/logits.h"
#include "worker/eval/run.h"

typedef struct eval_teacher_text {
    const int32_t *ids; /* [n_ids] */
    int64_t n_ids;
    const int32_t *prefix; /* [n_prefix] */
    int32_t n_prefix;
    int32_t window; /* tokens predicted of one window, >= 1; runs hold prefix and window */
} eval_teacher_text;

typedef struct eval_teacher_result {
    double nll; /* sum over n_tokens, nats */
    int64_t n_tokens;
    eval_gap gap; /* to the reference; of the reference itself: nothing */
} eval_teacher_result;

/* After every step of all runs; a failure ends the pass.  done of total tokens. */
typedef base_status (*eval_progress)(void *ctx, int64_t done, int64_t total);

/* runs [n_runs] all have the same options, with max_samples = max_step_tokens.  reference is the index of the run
 * that the others are compared with, or -1.  on_progress may be NULL.
 * Memory: two steps of logits.  Errors: NO_MEMORY, those of the steps and of on_progress. */
BASE_MUST_CHECK base_status eval_teacher_run(const eval_teacher_text *text, eval_run *const *runs,
                                             int32_t n_runs, int32_t reference,
                                             eval_progress on_progress, void *ctx,
                                             const base_alloc *mem,
                                             eval_teacher_result *results_out);

#endif /* WORKER_EVAL_TEACHER_H */
