/* worker/eval/task.h - a user's own questions, one JSON object a line:
 *
 *   {"prompt": "...", "answers": ["..."], "scorer": "exact", "max_new_tokens": 16}
 *
 * answers: at least one, none empty.  scorer: score.h.  max_new_tokens: 1..EVAL_TASK_MAX_NEW, 32 if left out.  Other
 * fields are refused; empty lines are skipped.  The text is from outside. */
#ifndef WORKER_EVAL_TASK_H
#define WORKER_EVAL_TASK_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"
#include "worker/eval/score.h"

#include <stdint.h>

#define EVAL_TASK_MAX_BYTES ((size_t)256 << 20)
#define EVAL_TASK_MAX_ITEMS 100000
#define EVAL_TASK_MAX_NEW   4096

typedef struct eval_task_item {
    base_view prompt;
    const base_view *answers; /* [n_answers] */
    int32_t n_answers;
    eval_scorer scorer;
    int32_t max_new_tokens;
    int32_t line; /* 1-based */
    void *json;   /* holds what the views point to */
} eval_task_item;

typedef struct eval_task {
    eval_task_item *items; /* [n_items], at least one */
    int32_t n_items;
    base_alloc mem;
} eval_task;

/* what names the source in errors.  Keeps no pointer to text.
 * Errors: BAD_FILE (what, line, field, value, limit), NO_MEMORY. */
BASE_MUST_CHECK base_status eval_task_parse(base_view text, const char *what, const base_alloc *mem,
                                            eval_task **task_out);
void eval_task_destroy(eval_task *task); /* NULL is allowed */

#endif /* WORKER_EVAL_TASK_H */
