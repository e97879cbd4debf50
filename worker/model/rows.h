/* worker/model/rows.h - which rows of a step, its tokens, a rank has.
 *
 * Where each rank has all weights, the ranks share the rows of a long step: a rank embeds, projects, merges and multiplies its
 * own rows of the residual alone, and turns their queries; queries, keys and values of all rows are gathered, since a rank attends for all rows over its
 * own positions.  Of a short step, and where ranks share the weights instead (split.h), each rank has all rows.
 * Shares follow each other, all as long but the last, which may be shorter.  Pure. */
#ifndef WORKER_MODEL_ROWS_H
#define WORKER_MODEL_ROWS_H

#include "kernels/op_deal.h"
#include "worker/model/split.h"

#include <stdbool.h>
#include <stdint.h>

/* A rank of a long step has so many rows or more.  With fewer, a product costs what reading its weights does, and three
 * exchanges more than a short step's cost what they save (docs/groups.md). */
#define MODEL_ROWS_LEAST 64

typedef struct model_rows {
    int32_t n_ranks; /* that share the rows; 1: none do */
    int32_t n_all;   /* T */
    int32_t n_each;  /* of every rank but the last: n_ranks * n_each >= T */
    int32_t begin;   /* this rank's: begin .. end - 1 */
    int32_t end;
} model_rows;

/* Tokens of the shortest step that n_ranks share; INT32_MAX: they share none. */
int32_t model_rows_shortest(const model_split *split, int32_t n_ranks);

/* Tokens of the longest step whose exchanges a comm takes (COMM_MAX_BYTES), and all shorter ones' too; SCRATCH_MAX_TOKENS at
 * most, and for one rank.  0: there is none. */
int32_t model_rows_longest(const model_config *config, const model_split *split, int32_t n_ranks);

/* Of a step of n_tokens, which is 0 or more. */
model_rows model_rows_make(const model_split *split, int32_t rank, int32_t n_ranks,
                           int32_t n_tokens);

/* Where the ranks' rows begin, and T, times `unit`: begins_out [n_ranks + 1]. */
void model_rows_begins(const model_rows *rows, int32_t unit, int32_t *begins_out);

static inline bool model_rows_are_shared(const model_rows *rows)
{
    return rows->n_ranks > 1;
}

static inline int32_t model_rows_count(const model_rows *rows)
{
    return rows->end - rows->begin;
}

#endif /* WORKER_MODEL_ROWS_H */
