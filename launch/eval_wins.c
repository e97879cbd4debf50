#include "launch/eval_wins.h"

#include <math.h>

static double error_of(const eval_result *r, int32_t layer, bool pairs)
{
    return pairs ? r->layers[layer].pairs : r->layers[layer].offsets;
}

/* The policy of the list that is tq with so many bits of K, or NULL. */
static const eval_result *find_nominal(const eval_session *s, int32_t k_bits)
{
    for (int32_t i = 0; i < s->options.n_policies; i++) {
        const kv_policy *p = &s->options.policies[i];
        if (p->kind == KV_POLICY_TQ && p->k_bits == k_bits) {
            return &s->results[i];
        }
    }
    return NULL;
}

/* The tq of the list whose bits of K in a layer are nearest to bits, from below or from above; or NULL. */
static const eval_result *find_nearest(const eval_session *s, int32_t layer, double bits,
                                       bool below)
{
    const eval_result *best = NULL;
    for (int32_t i = 0; i < s->options.n_policies; i++) {
        const eval_result *r = &s->results[i];
        const double own = r->layer_k_bits[layer];
        if (s->options.policies[i].kind == KV_POLICY_TQ && (below ? own <= bits : own >= bits) &&
            (best == NULL || fabs(own - bits) < fabs(best->layer_k_bits[layer] - bits))) {
            best = r;
        }
    }
    return best;
}

/* Error of tq at any bits of K that its widths in the list enclose; NaN outside. */
static double tq_error(const eval_session *s, int32_t layer, double bits, bool pairs)
{
    const eval_result *low = find_nearest(s, layer, bits, true);
    const eval_result *high = find_nearest(s, layer, bits, false);
    if (low == NULL || high == NULL) {
        return (double)NAN;
    }
    const double error = error_of(low, layer, pairs);
    const double span = high->layer_k_bits[layer] - low->layer_k_bits[layer];
    const double at = span > 0.0 ? (bits - low->layer_k_bits[layer]) / span : 0.0;
    return error * pow(error_of(high, layer, pairs) / error, at);
}

bool eval_wins_find(const eval_session *s, int32_t policy, bool pairs, bool true_bits,
                    eval_wins *wins_out)
{
    const kv_policy *p = &s->options.policies[policy];
    const eval_result *r = &s->results[policy];
    const eval_result *nominal = find_nominal(s, p->k_bits);
    eval_wins wins = {0, 0.0};
    double sum = 0.0;
    double tq_sum = 0.0;

    if (p->kind == KV_POLICY_BF16 || p->kind == KV_POLICY_TQ || (!true_bits && nominal == NULL)) {
        return false;
    }
    for (int32_t l = 0; l < s->model->config.n_layers; l++) {
        const double tq =
            true_bits ? tq_error(s, l, r->layer_k_bits[l], pairs) : error_of(nominal, l, pairs);
        sum += error_of(r, l, pairs);
        tq_sum += tq;
        wins.n_layers += error_of(r, l, pairs) < tq;
    }
    if (isnan(tq_sum)) {
        return false;
    }
    wins.cut = 1.0 - sum / tq_sum;
    *wins_out = wins;
    return true;
}
