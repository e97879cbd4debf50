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

/* The best token is the same where it is further from the second than logits are off. */
static inline bool logits_same_best(const float *got, const float *want, int32_t n)
{
    const int32_t best = eval_logits_best(want, n);
    double worst = 0.0;
    double second = -HUGE_VAL;
    for (int32_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        second = i == best ? second : fmax(second, (double)want[i]);
    }
    return (double)want[best] - second <= 2.0 * worst || eval_logits_best(got, n) == best;
}

#endif /* TESTS_SUPPORT_LOGITS_DISTANCE_H */
