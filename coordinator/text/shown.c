#include "coordinator/text/shown.h"

#include "coordinator/text/family.h"
#include "coordinator/text/tokenizer_parts.h"

#define MAX_OPEN_BYTES ((size_t)INT32_MAX)

void text_shown_init(text_shown *shown, const text_tokenizer *tokenizer, bool skip_special,
                     const base_alloc *mem)
{
    *shown = (text_shown){.tokenizer = tokenizer, .skip_special = skip_special, .at_start = true};
    base_bytes_init(&shown->open, MAX_OPEN_BYTES, mem);
}

void text_shown_reset(text_shown *shown)
{
    base_bytes_reset(&shown->open);
}

/* Takes the space away that stands in front of a whole text; before is where it begins in out. */
static void strip(text_shown *shown, size_t before, base_bytes *out)
{
    if (!shown->at_start || out->n_bytes == before) {
        return;
    }
    shown->at_start = false;
    if (shown->tokenizer->spaces.strip && out->data[before] == ' ') {
        memmove(out->data + before, out->data + before + 1, out->n_bytes - before);
        out->n_bytes--;
    }
}

base_status text_shown_add(text_shown *shown, int32_t id, base_bytes *out)
{
    const text_tokenizer *t = shown->tokenizer;
    const size_t before = out->n_bytes;
    base_status st = text_tokenizer_check_id(t, id, 0);
    if (st != BASE_OK || (shown->skip_special && text_tokenizer_is_special(t, id))) {
        return st;
    }
    st = t->family->show(t, id, &shown->open, out);
    strip(shown, before, out);
    return st;
}

base_status text_shown_finish(text_shown *shown, base_bytes *out)
{
    const size_t before = out->n_bytes;
    const base_status st = shown->tokenizer->family->show_rest(&shown->open, out);
    strip(shown, before, out);
    return st;
}
