/* worker/model/head.h - logits of some tokens of a step: final norm and head.
 *
 * Ranks that share the weights have the logits of their own ids each.  These are gathered, and where logits are wanted their
 * pieces are put together: units of ids (split.h), which no two ranks share. */
#ifndef WORKER_MODEL_HEAD_H
#define WORKER_MODEL_HEAD_H

#include "base/status.h"
#include "worker/model/block.h"

#include <stdint.h>

typedef struct head_rows {
    const int32_t *tokens; /* [n] of the step, any rank's; a mirror, as pieces */
    const int32_t *pieces; /* [n][head_pieces], as head_lay_out leaves them */
    int32_t n;
    float *logits; /* [n, V]; NULL: not wanted on this rank, which helps the others */
} head_rows;

/* Pieces of a row; 0: a rank has whole rows. */
int32_t head_pieces(const model_config *config, const model_split *split);
/* Where in the logits of all ranks the pieces of n rows lie; nothing where a rank has whole rows. */
void head_lay_out(const model_config *config, const model_split *split, int32_t n,
                  int32_t *pieces_out);

/* Collective if ranks share the weights or the step's rows, with equal n.  Errors: what the ops and the exchange return. */
BASE_MUST_CHECK base_status head_run(const block_step *b, const model *m, const head_rows *rows);

#endif /* WORKER_MODEL_HEAD_H */
