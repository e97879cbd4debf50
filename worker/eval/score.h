/* worker/eval/score.h - how good a reply is, given the answers that count as right.
 *
 *   exact     1 if the reply is an answer, white space at both ends apart
 *   contains  1 if an answer stands in the reply, the case of ASCII letters apart
 *   f1        the best over the answers of 2PR / (P + R), P and R the shares of words that reply and answer have in
 *             common, counted with repetition; lower case, without ASCII punctuation and the words a, an, the
 *             (as SQuAD scores)
 * Pure; any thread. */
#ifndef WORKER_EVAL_SCORE_H
#define WORKER_EVAL_SCORE_H

#include "base/status.h"
#include "base/view.h"

#include <stdint.h>

#define EVAL_SCORERS X(EXACT, "exact") X(CONTAINS, "contains") X(F1, "f1")

typedef enum eval_scorer {
#define X(name, text) EVAL_SCORER_##name,
    EVAL_SCORERS
#undef X
} eval_scorer;

/* Errors: NOT_FOUND (bare). */
BASE_MUST_CHECK base_status eval_scorer_parse(base_view text, eval_scorer *scorer_out);

/* 0..1, the best over the answers. */
double eval_score(eval_scorer scorer, base_view reply, const base_view *answers, int32_t n_answers);

#endif /* WORKER_EVAL_SCORE_H */
