#include "worker/eval/task.h"

#include "base/json.h"

#include <stdio.h>

#define MAX_WHAT    512
#define DEFAULT_NEW 32

static base_view next_line(base_view *rest)
{
    const char *end = memchr(rest->data, '\n', rest->n_bytes);
    const base_view line = {rest->data, end == NULL ? rest->n_bytes : (size_t)(end - rest->data)};
    const size_t n_used = end == NULL ? line.n_bytes : line.n_bytes + 1;
    rest->data += n_used;
    rest->n_bytes -= n_used;
    return line;
}

static bool is_blank(base_view line)
{
    for (size_t i = 0; i < line.n_bytes; i++) {
        if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r') {
            return false;
        }
    }
    return true;
}

static base_status refuse_unknown(json_t *root, const char *what)
{
    static const char *const known[] = {"prompt", "answers", "scorer", "max_new_tokens"};
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            found = found || strcmp(key, known[i]) == 0;
        }
        if (!found) {
            return BASE_FAIL(BASE_BAD_FILE,
                             "%s: field '%.60s' is unknown; known are prompt, answers, scorer and "
                             "max_new_tokens",
                             what, key);
        }
    }
    return BASE_OK;
}

static base_status read_answers(const json_t *root, const char *what, const base_alloc *mem,
                                eval_task_item *item)
{
    const json_t *list = json_object_get(root, "answers");
    const size_t n = json_array_size(list);
    if (n == 0) {
        return BASE_FAIL(BASE_BAD_FILE, "%s: field 'answers' is not a list of at least one text",
                         what);
    }
    base_view *answers = mem->get(mem->ctx, n * sizeof *answers);
    item->answers = answers;
    if (answers == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%zu answers", n);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *entry = json_array_get(list, i);
        answers[i] = (base_view){json_string_value(entry), json_string_length(entry)};
        if (answers[i].n_bytes == 0) {
            return BASE_FAIL(BASE_BAD_FILE,
                             "%s: field 'answers': entry %zu is not a text, or empty", what, i);
        }
    }
    item->n_answers = (int32_t)n;
    return BASE_OK;
}

/* On failure the item may hold memory: item_reset. */
static base_status read_item(base_view line, const char *what, const base_alloc *mem,
                             eval_task_item *item)
{
    base_status st = BASE_OK;
    json_t *root = NULL;
    base_view scorer = {NULL, 0};
    int64_t max_new = DEFAULT_NEW;

    BASE_TRY(st, out, base_json_parse(line, what, &root));
    item->json = root;
    BASE_TRY(st, out, base_json_get_text(root, what, "prompt", true, &item->prompt));
    BASE_TRY(st, out, base_json_get_text(root, what, "scorer", true, &scorer));
    BASE_TRY(
        st, out,
        base_json_get_int(root, what, "max_new_tokens", false, 1, EVAL_TASK_MAX_NEW, &max_new));
    BASE_TRY(st, out, refuse_unknown(root, what));
    item->max_new_tokens = (int32_t)max_new;
    if (eval_scorer_parse(scorer, &item->scorer) != BASE_OK) {
        st = BASE_FAIL(BASE_BAD_FILE,
                       "%s: field 'scorer' is '%.*s', allowed are exact, contains and f1", what,
                       scorer.n_bytes > 40 ? 40 : (int)scorer.n_bytes, scorer.data);
        goto out;
    }
    st = read_answers(root, what, mem, item);
out:
    return st;
}

static void item_reset(eval_task_item *item, const base_alloc *mem)
{
    mem->put(mem->ctx, (void *)(uintptr_t)item->answers);
    base_json_free(item->json);
}

/* Lines that hold an item, up to one more than is allowed. */
static int32_t count_items(base_view text)
{
    int32_t n = 0;
    while (text.n_bytes > 0 && n <= EVAL_TASK_MAX_ITEMS) {
        n += !is_blank(next_line(&text));
    }
    return n;
}

base_status eval_task_parse(base_view text, const char *what, const base_alloc *mem,
                            eval_task **task_out)
{
    base_status st = BASE_OK;
    char place[MAX_WHAT];
    const int32_t n_items = count_items(text);
    eval_task *task = NULL;

    if (n_items == 0 || n_items > EVAL_TASK_MAX_ITEMS) {
        st = BASE_FAIL(BASE_BAD_FILE, "%s: %s lines, allowed 1..%d", what,
                       n_items == 0 ? "no" : "too many", EVAL_TASK_MAX_ITEMS);
        goto out;
    }
    task = mem->get(mem->ctx, sizeof *task);
    if (task == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "task");
        goto out;
    }
    task->mem = *mem;
    task->items = mem->get(mem->ctx, (size_t)n_items * sizeof *task->items);
    if (task->items == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "task of %d lines", n_items);
        goto out;
    }
    for (int32_t line = 1; text.n_bytes > 0; line++) {
        const base_view one = next_line(&text);
        if (is_blank(one)) {
            continue;
        }
        (void)snprintf(place, sizeof place, "%s line %d", what, line);
        eval_task_item *item = &task->items[task->n_items++];
        item->line = line;
        BASE_TRY(st, out, read_item(one, place, mem, item));
    }
    *task_out = task;
    task = NULL;
out:
    eval_task_destroy(task);
    return st;
}

void eval_task_destroy(eval_task *task)
{
    if (task == NULL) {
        return;
    }
    const base_alloc mem = task->mem;
    for (int32_t i = 0; i < task->n_items; i++) {
        item_reset(&task->items[i], &mem);
    }
    mem.put(mem.ctx, task->items);
    mem.put(mem.ctx, task);
}
