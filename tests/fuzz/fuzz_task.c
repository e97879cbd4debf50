#include "worker/eval/task.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

/* A file is refused, or every item keeps the limits of task.h and can be scored. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    eval_task *task = NULL;
    const base_view text = {(const char *)bytes, n_bytes};
    if (eval_task_parse(text, "task", &base_heap, &task) != BASE_OK) {
        if (task != NULL || strstr(base_last_error(), "task") == NULL) {
            abort();
        }
        return 0;
    }
    if (task->n_items < 1 || task->n_items > EVAL_TASK_MAX_ITEMS) {
        abort();
    }
    for (int32_t i = 0; i < task->n_items; i++) {
        const eval_task_item *item = &task->items[i];
        if (item->n_answers < 1 || item->answers[0].n_bytes == 0 || item->max_new_tokens < 1 ||
            item->max_new_tokens > EVAL_TASK_MAX_NEW ||
            item->line < (i == 0 ? 1 : item[-1].line + 1)) {
            abort();
        }
        const double itself = eval_score(item->scorer, item->answers[0], item->answers, 1);
        const double other = eval_score(item->scorer, item->prompt, item->answers, item->n_answers);
        if (itself < 0.999 || other < 0.0 || other > 1.001) {
            abort();
        }
    }
    eval_task_destroy(task);
    return 0;
}
