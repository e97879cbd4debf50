/* worker/eval/needle.h - prompts that hide a number in a text and ask for it.
 *
 *   <sentences> The secret number for amber falcon is 48213. <sentences>
 *   Question: What is the secret number for amber falcon?
 *   Answer:
 *
 * A pure function of the options and of count. */
#ifndef WORKER_EVAL_NEEDLE_H
#define WORKER_EVAL_NEEDLE_H

#include "base/bytes.h"
#include "base/status.h"
#include "base/view.h"

#include <stdbool.h>
#include <stdint.h>

#define EVAL_NEEDLE_MAX_KEYS  64
#define EVAL_NEEDLE_MIN_TOKEN 128 /* of a prompt */

typedef struct eval_needle_options {
    base_view
        haystack; /* prose; cut at sentences, from a random one on, again from the start at its end */
    int32_t n_tokens; /* of prompt and answer, about: at most this by count */
    double depth;     /* 0..1 where the asked number stands: 0 first, 1 last */
    int32_t n_keys;   /* 1..EVAL_NEEDLE_MAX_KEYS; the others stand at random depths */
    uint64_t seed;
    uint64_t stream; /* prompts of one seed differ by it */
} eval_needle_options;

/* How many tokens a text takes.  Errors are passed on. */
typedef base_status (*eval_count_tokens)(void *ctx, base_view text, int32_t *n_out);

typedef struct eval_needle {
    base_bytes prompt;
    char number[16]; /* 5 to 7 digits */
} eval_needle;

/* The caller ends *needle_out with eval_needle_reset.
 * Errors: BAD_INPUT (n_tokens, n_keys, no sentence in the haystack), NO_MEMORY, count's. */
BASE_MUST_CHECK base_status eval_needle_make(const eval_needle_options *options,
                                             eval_count_tokens count, void *ctx,
                                             const base_alloc *mem, eval_needle *needle_out);
void eval_needle_reset(eval_needle *needle);

/* True if the reply begins, after white space, with the number and no further digit follows. */
bool eval_needle_matches(const char *number, base_view reply);

#endif /* WORKER_EVAL_NEEDLE_H */
