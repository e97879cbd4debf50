/* launch/eval_text.h - all policies of an `eval` over one text, side by side. */
#ifndef LAUNCH_EVAL_TEXT_H
#define LAUNCH_EVAL_TEXT_H

#include "launch/eval_session.h"

typedef struct eval_text_result {
    eval_teacher_result teacher;
    eval_attn_mae *layers; /* [L], the caller's to put back; NULL without logits */
} eval_text_result;

/* Reads options.text (at most max_tokens of it) and fills s->text_tokens and text_bytes.  With options.logits the
 * policies are compared with bf16, which runs beside them if it is not one of them.
 * Errors: NOT_FOUND, IO, BAD_INPUT (an empty text), NO_MEMORY, those of the steps. */
BASE_MUST_CHECK base_status eval_text_measure(eval_session *s, eval_progress on_progress, void *ctx,
                                              eval_text_result *results_out);

#endif /* LAUNCH_EVAL_TEXT_H */
