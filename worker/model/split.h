/* worker/model/split.h - which part of the weights a rank holds where the ranks of a group share them (Helix).
 *
 * Norms, q, k and v and their biases are on every rank.  Of the others rank r has the slices of its heads (columns of o), of
 * its share of the MLP (rows of gate and up, columns of down) and of its ids (rows of embedding and head).
 * Heads of a rank are whole groups of a KV head's, or lie within one: with N ranks up to Hkv whole groups, as even as they
 * go; else KV heads are dealt to ranks, and the heads of one are shared by its ranks.  Pure. */
#ifndef WORKER_MODEL_SPLIT_H
#define WORKER_MODEL_SPLIT_H

#include "base/status.h"
#include "kernels/op_deal.h"
#include "worker/model/config.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct model_span { /* both 0: all of it */
    int32_t begin;
    int32_t end;
} model_span;

typedef struct model_slice { /* what a rank takes of a tensor */
    int32_t rows;            /* of the tensor, as in its file */
    int32_t cols;            /* 0: a vector of `rows` */
    model_span row;
    model_span col;
} model_slice;

typedef struct model_split {
    int32_t rank;
    int32_t n_ranks;       /* 1: the whole model */
    model_span heads;      /* of H */
    model_span kv_heads;   /* of Hkv, those that `heads` belong to */
    model_span ffn;        /* of F */
    model_span vocab;      /* of V */
    int32_t vocab_unit;    /* each rank's ids are whole units; they divide V */
    int32_t vocab_longest; /* ids of the rank that has most */
    int32_t head_begins[KERN_DEAL_MAX_RANKS + 1]; /* of all ranks, and H */
} model_split;

/* Errors: BAD_INPUT (n_ranks below 1 or above KERN_DEAL_MAX_RANKS; more ranks than heads or MLP rows; a vocabulary that cannot
 * be cut so often), naming the field of config.json, its value and the limit. */
BASE_MUST_CHECK base_status model_split_make(const model_config *config, int32_t rank,
                                             int32_t n_ranks, model_split *split_out);

/* Of a slice, with both 0 resolved. */
model_span model_slice_rows(const model_slice *slice);
model_span model_slice_cols(const model_slice *slice); /* of a vector: one */

/* The ids of another rank. */
model_span model_split_vocab(const model_split *split, int32_t n_vocab, int32_t rank);

static inline bool model_is_split(const model_split *split)
{
    return split->n_ranks > 1;
}

static inline int32_t model_span_count(model_span span)
{
    return span.end - span.begin;
}

#endif /* WORKER_MODEL_SPLIT_H */
