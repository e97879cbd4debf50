#include "kvshard/allocate.h"

#include <assert.h>
#include <math.h>

void kv_allocate_bits(const double *scores, int32_t n, int32_t budget, int32_t low, int32_t high,
                      int32_t *bits_out)
{
    assert(n * low <= budget && budget <= n * high);
    for (int32_t i = 0; i < n; i++) {
        bits_out[i] = low;
    }
    for (int32_t left = budget - n * low; left > 0; left--) {
        int32_t best = -1;
        double best_gain = 0.0;
        for (int32_t i = 0; i < n; i++) {
            const double gain = ldexp(scores[i], -2 * bits_out[i]);
            if (bits_out[i] < high && (best < 0 || gain > best_gain)) {
                best = i;
                best_gain = gain;
            }
        }
        bits_out[best]++;
    }
}

/* 2 - 2 sqrt(1 - D(b)), of the distortion D of what pages use (codebook.h): stored norms are those of the rows. */
static const double group_errors[] = {0.4042309,   0.1211517,    0.03485263,   0.009527956,
                                      0.002506239, 0.0006443435, 0.0001634849, 4.118551e-05};

double kv_group_error(int32_t bits)
{
    return group_errors[bits - 1];
}

/* The most bits that a group of n items can have of `bits`. */
static int32_t widest(const kv_group_rule *rule, int32_t n, int32_t bits)
{
    const int32_t b = (bits - rule->norm_bits) / (n * rule->item_dims);
    return b < rule->most_bits ? b : rule->most_bits;
}

kv_groups kv_allocate_groups(const double *weights, int32_t n, const kv_group_rule *rule)
{
    double all = 0.0;
    for (int32_t i = 0; i < n; i++) {
        all += weights[i];
    }
    const int32_t uniform = widest(rule, n, rule->budget);
    assert(uniform >= 1);
    kv_groups best = {.n_groups = 1,
                      .n_items = {n},
                      .bits = {uniform},
                      .error = kv_group_error(uniform) * all * all / n};
    double light = 0.0;
    for (int32_t cut = 1; cut < n; cut++) {
        light += weights[cut - 1];
        const double heavy = all - light;
        for (int32_t b = 1; b <= rule->most_bits; b++) {
            const int32_t left = rule->budget - rule->norm_bits - cut * rule->item_dims * b;
            const int32_t rest = left < rule->norm_bits ? 0 : widest(rule, n - cut, left);
            if (rest < 1) {
                break;
            }
            const double error = kv_group_error(b) * light * light / cut +
                                 kv_group_error(rest) * heavy * heavy / (n - cut);
            if (error < best.error) {
                best = (kv_groups){2, {cut, n - cut}, {b, rest}, error};
            }
        }
    }
    return best;
}
