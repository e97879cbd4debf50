#include "worker/eval/logits.h"

#include <math.h>

int32_t eval_logits_best(const float *logits, int32_t n_vocab)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n_vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* log sum exp */
static double log_total(const float *logits, int32_t n_vocab)
{
    const double most = (double)logits[eval_logits_best(logits, n_vocab)];
    double sum = 0.0;
    for (int32_t i = 0; i < n_vocab; i++) {
        sum += exp((double)logits[i] - most);
    }
    return most + log(sum);
}

double eval_logits_nll(const float *logits, int32_t n_vocab, int32_t id)
{
    return log_total(logits, n_vocab) - (double)logits[id];
}

/* The n_top largest, best first; of equals the lower index. */
static void find_top(const float *logits, int32_t n_vocab, int32_t n_top, int32_t *top_out)
{
    int32_t n = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (n == n_top && !(logits[i] > logits[top_out[n - 1]])) {
            continue;
        }
        int32_t at = n < n_top ? n++ : n - 1;
        while (at > 0 && logits[i] > logits[top_out[at - 1]]) {
            top_out[at] = top_out[at - 1];
            at--;
        }
        top_out[at] = i;
    }
}

static double overlap(const int32_t *a, const int32_t *b, int32_t n)
{
    int32_t n_same = 0;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t j = 0; j < n; j++) {
            n_same += a[i] == b[j];
        }
    }
    return (double)n_same / n;
}

void eval_gap_add(eval_gap *gap, const float *reference, const float *logits, int32_t n_vocab)
{
    const int32_t n_top = n_vocab < EVAL_TOP ? n_vocab : EVAL_TOP;
    int32_t top_reference[EVAL_TOP];
    int32_t top[EVAL_TOP];
    const double total_reference = log_total(reference, n_vocab);
    const double total = log_total(logits, n_vocab);
    double kl = 0.0;
    double error = 0.0;

    for (int32_t i = 0; i < n_vocab; i++) {
        const double log_p = (double)reference[i] - total_reference;
        const double log_q = (double)logits[i] - total;
        kl += exp(log_p) * (log_p - log_q);
        error += fabs((double)logits[i] - (double)reference[i]);
    }
    find_top(reference, n_vocab, n_top, top_reference);
    find_top(logits, n_vocab, n_top, top);
    gap->kl += kl;
    gap->abs_error += error / n_vocab;
    gap->top1 += top_reference[0] == top[0] ? 1.0 : 0.0;
    gap->top10 += overlap(top_reference, top, n_top);
    gap->n_rows++;
}
