#include "launch/prompt.h"

#include "base/file.h"
#include "base/json.h"

#include <string.h>

static base_status read_ids(const char *argument, prompt *p)
{
    base_status st;
    json_t *root = NULL;

    if (argument[0] == '@') {
        BASE_TRY(st, out, base_json_read(argument + 1, PROMPT_MAX_BYTES, &root));
    } else {
        BASE_TRY(st, out, base_json_parse(base_view_of(argument), "--prompt-ids", &root));
    }
    if (!json_is_array(root) || json_array_size(root) == 0) {
        st = BASE_FAIL(BASE_BAD_INPUT, "--prompt-ids is not a JSON array of at least one id");
        goto out;
    }
    p->n_ids = json_array_size(root);
    p->ids = p->mem.get(p->mem.ctx, p->n_ids * sizeof *p->ids);
    if (p->ids == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%zu prompt ids", p->n_ids);
        goto out;
    }
    for (size_t i = 0; i < p->n_ids; i++) {
        const json_t *entry = json_array_get(root, i);
        if (!json_is_integer(entry) || json_integer_value(entry) < 0 ||
            json_integer_value(entry) > INT32_MAX) {
            st = BASE_FAIL(BASE_BAD_INPUT, "--prompt-ids: entry %zu is not an id in 0..%d", i,
                           INT32_MAX);
            goto out;
        }
        p->ids[i] = (int32_t)json_integer_value(entry);
    }
out:
    base_json_free(root);
    return st;
}

base_status prompt_read(const char *text, const char *file, const char *ids, const base_alloc *mem,
                        prompt *prompt_out)
{
    base_status st = BASE_OK;
    prompt p = {.mem = *mem};
    const int n_given = (text != NULL) + (file != NULL) + (ids != NULL);

    if (n_given != 1) {
        return BASE_FAIL(
            BASE_BAD_INPUT,
            "%s of --prompt, --prompt-file and --prompt-ids given, exactly one is needed",
            n_given == 0 ? "none" : "several");
    }
    if (ids != NULL) {
        BASE_TRY(st, out, read_ids(ids, &p));
    } else if (file != NULL) {
        p.has_text = true;
        BASE_TRY(st, out, base_file_read(file, PROMPT_MAX_BYTES, mem, &p.bytes, &p.text.n_bytes));
        p.text.data = p.bytes;
    } else {
        p.has_text = true;
        p.text = base_view_of(text);
    }
    *prompt_out = p;
    return BASE_OK;
out:
    prompt_reset(&p);
    return st;
}

void prompt_reset(prompt *p)
{
    if (p->mem.put != NULL) {
        p->mem.put(p->mem.ctx, p->bytes);
        p->mem.put(p->mem.ctx, p->ids);
    }
    *p = (prompt){.mem = p->mem};
}
