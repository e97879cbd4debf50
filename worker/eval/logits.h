/* worker/eval/logits.h - what a row of next-token logits says, and how far another row is from it.
 *
 *   p = softmax(logits) in double, natural logarithms.  Rows are [n_vocab] f32 and finite.
 * Pure; any thread. */
#ifndef WORKER_EVAL_LOGITS_H
#define WORKER_EVAL_LOGITS_H

#include <stdint.h>

#define EVAL_TOP 10

/* The lowest index of the largest logit. */
int32_t eval_logits_best(const float *logits, int32_t n_vocab);

/* -log p[id] in nats. */
double eval_logits_nll(const float *logits, int32_t n_vocab, int32_t id);

/* Sums over rows; divide by n_rows. */
typedef struct eval_gap {
    double abs_error; /* mean over the vocabulary of |logit - reference| */
    double kl;        /* KL(softmax(reference) || softmax(logits)), nats */
    double top1;      /* 1 if both have the same best token */
    double top10;     /* share of the reference's EVAL_TOP best tokens among the other's */
    int64_t n_rows;
} eval_gap;

/* Adds one row.  With n_vocab below EVAL_TOP, top10 counts n_vocab tokens. */
void eval_gap_add(eval_gap *gap, const float *reference, const float *logits, int32_t n_vocab);

#endif /* WORKER_EVAL_LOGITS_H */
