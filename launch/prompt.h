/* launch/prompt.h - the prompt of a command: text, a file of text, or token ids. */
#ifndef LAUNCH_PROMPT_H
#define LAUNCH_PROMPT_H

#include "base/alloc.h"
#include "base/status.h"
#include "base/view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROMPT_MAX_BYTES \
    ((size_t)60 << 20) /* what fits into one message with room for its fields */

typedef struct prompt {
    bool has_text;
    base_view text;
    int32_t *ids;
    size_t n_ids;
    char *bytes; /* owned: what text points into */
    base_alloc mem;
} prompt;

/* Exactly one of text, file and ids is given.  ids is a JSON array, or "@FILE" with one.
 * Errors: BAD_INPUT (none or several, an entry of the array by its index), NOT_FOUND, IO, BAD_FILE, NO_MEMORY. */
BASE_MUST_CHECK base_status prompt_read(const char *text, const char *file, const char *ids,
                                        const base_alloc *mem, prompt *prompt_out);
void prompt_reset(prompt *p); /* a zeroed prompt is allowed */

#endif /* LAUNCH_PROMPT_H */
