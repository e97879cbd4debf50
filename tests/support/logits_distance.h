/* tests/support/logits_distance.h - how far rows of logits are from those wanted. */
#ifndef TESTS_SUPPORT_LOGITS_DISTANCE_H
#define TESTS_SUPPORT_LOGITS_DISTANCE_H

#include "worker/eval/logits.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* |got - want| / |want|; NaN counts as infinite. */
static inline double logits_distance(const float *got, const float *want, int32_t n)
{
    double off = 0.0;
    double size = 0.0;
    for (int32_t i = 0; i < n; i++) {
        off += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        size += (double)want[i] * (double)want[i];
    }
    const double d = sqrt(off / size);
    return d >= 0.0 ? d : (double)INFINITY;
}

/* The difference of the two best logits. */
static inline double logits_margin(const float *logits, int32_t n)
{
    const int32_t best = eval_logits_best(logits, n);
    double second = -HUGE_VAL;
    for (int32_t i = 0; i < n; i++) {
        second = i != best && (double)logits[i] > second ? (double)logits[i] : second;
    }
    return (double)logits[best] - second;
}

/* The largest difference of two logits, in units of which a margin must be to decide a token. */
static inline double logits_worst(const float *a, const float *b, int32_t n)
{
    double worst = 0.0;
    for (int32_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    return worst;
}

/* The best token is the same where it is further from the second than logits are off. */
static inline bool logits_same_best(const float *got, const float *want, int32_t n)
{
    return logits_margin(want, n) <= 2.0 * logits_worst(got, want, n) ||
           eval_logits_best(got, n) == eval_logits_best(want, n);
}

#endif /* TESTS_SUPPORT_LOGITS_DISTANCE_H */
