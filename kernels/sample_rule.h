/* kernels/sample_rule.h - the arithmetic of op_sample.h that every backend shares, so that all draw the same token.
 *
 * Only subtraction, multiplication and comparison of IEEE floats, each rounded by itself, and integers. */
#ifndef KERNELS_SAMPLE_RULE_H
#define KERNELS_SAMPLE_RULE_H

#include "kernels/op_sample.h"

#include <stdbool.h>
#include <string.h>

#ifdef __CUDACC__
#define SAMPLE_FN static __host__ __device__ __forceinline__
#else
#define SAMPLE_FN static inline
#endif

#define SAMPLE_FAR 0xffffffffu /* more than 31 bits away: a weight of 0 */
#define SAMPLE_ONE 0x80000000u /* the weight of the best id */

SAMPLE_FN float sample_score(float logit, bool seen, float penalty)
{
    return !seen ? logit : logit > 0.0f ? logit / penalty : logit * penalty;
}

/* Larger for what is better: a higher score, then a lower id.  Never 0. */
SAMPLE_FN uint64_t sample_key(float score, int32_t id)
{
    const float x = score + 0.0f; /* -0 is 0 */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return (uint64_t)(x != x ? 0 : bits) << 32 | (0xffffffffu - (uint32_t)id);
}

SAMPLE_FN int32_t sample_key_id(uint64_t key)
{
    return (int32_t)(0xffffffffu - (uint32_t)key);
}

SAMPLE_FN bool sample_key_is_nan(uint64_t key)
{
    return key >> 32 == 0;
}

/* Of a score's way below the best one, for sample_distance. */
SAMPLE_FN float sample_scale(float temperature)
{
    return (float)(193635250.58498377 / (double)temperature); /* 2^27 log2(e) */
}

/* In 2^-27 of a factor of two of probability. */
SAMPLE_FN uint32_t sample_distance(float score, float best, float scale)
{
    if (score == best) { /* also of infinite ones */
        return 0;
    }
    const float d = (best - score) * scale;
    return d <= 4160749568.0f ? (uint32_t)d : SAMPLE_FAR; /* 31 * 2^27; NaN is far */
}

SAMPLE_FN uint32_t sample_high(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

/* 2^31 * 2^(-q / 2^27), within 1e-8 of itself and rounded down, at least 1; q is not far. */
SAMPLE_FN uint32_t sample_weight(uint32_t q)
{
    const uint32_t t = q << 5; /* the fraction, in 2^-32 */
    uint32_t p = 0x78809u;     /* 1 - 2^-t = t * p(t), interpolated at six points */
    p = 0x54a612u - sample_high(t, p);
    p = 0x274f388u - sample_high(t, p);
    p = 0xe353290u - sample_high(t, p);
    p = 0x3d7f7506u - sample_high(t, p);
    p = 0xb17217dfu - sample_high(t, p);
    return (0x80000000u - (sample_high(t, p) >> 1)) >> (q >> 27);
}

/* The least integer that reaches `share` of total, at least 1. */
SAMPLE_FN uint64_t sample_target(float share, uint64_t total)
{
    const double exact = (double)share * (double)total;
    uint64_t target = (uint64_t)exact;
    target += (double)target < exact;
    return target == 0 ? 1 : target;
}

/* What may be drawn under min_p: this weight or more. */
SAMPLE_FN uint32_t sample_least_weight(float min_p)
{
    const double exact = (double)min_p * 2147483648.0;
    if (!(exact > 1.0)) {
        return 1;
    }
    if (exact >= 2147483648.0) {
        return SAMPLE_ONE;
    }
    const uint32_t least = (uint32_t)exact;
    return least + ((double)least < exact);
}

/* floor(total * random / 2^64); total below 2^52. */
SAMPLE_FN uint64_t sample_point(uint64_t total, uint64_t random)
{
    const uint64_t low = total & 0xffffffffu;
    const uint64_t high = total >> 32;
    const uint64_t r_low = random & 0xffffffffu;
    const uint64_t r_high = random >> 32;
    const uint64_t middle = low * r_high + (low * r_low >> 32);
    return high * r_high + (middle >> 32) + ((high * r_low + (middle & 0xffffffffu)) >> 32);
}

/* Ids up to a place in the order by distance, then by id. */
typedef struct sample_cut {
    uint32_t q;
    int32_t id; /* the last one at q */
} sample_cut;

SAMPLE_FN bool sample_within(sample_cut cut, uint32_t q, int32_t id)
{
    return q < cut.q || (q == cut.q && id <= cut.id);
}

#endif /* KERNELS_SAMPLE_RULE_H */
