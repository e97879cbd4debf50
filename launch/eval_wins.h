/* launch/eval_wins.h - a policy's attention logits against those of uniform tq, layer by layer.
 *
 *   nominal     against tq with the same k, as papers count
 *   true bits   against tq with the same bits of K in that layer, norms and padding included: between two widths of
 *               the list its error is interpolated in logs, which is less than any mix of the two would give
 *
 * A layer is won if its mean absolute error is smaller; the cut is 1 - mean / mean of tq, means over layers.
 * Pure; any thread. */
#ifndef LAUNCH_EVAL_WINS_H
#define LAUNCH_EVAL_WINS_H

#include "launch/eval_session.h"

typedef struct eval_wins {
    int32_t n_layers; /* won */
    double cut;
} eval_wins;

/* False for bf16 and tq themselves, and where the list of policies has no tq to compare with.
 * pairs: the measure (eval_attn_mae). */
bool eval_wins_find(const eval_session *s, int32_t policy, bool pairs, bool true_bits,
                    eval_wins *wins_out);

#endif /* LAUNCH_EVAL_WINS_H */
