#include "worker/model/rope.h"

#include <math.h>

#define SINGULAR 0.001 /* width of a yarn band that has none */

/* Frequencies that turn often within the original context stay, those that hardly turn are divided
 * by factor, and between the two it goes smoothly. */
static double llama3_scale(const rope_scaling *s, double freq)
{
    const double wavelength = 2.0 * M_PI / freq;
    if (wavelength < s->original_context / s->high_freq_factor) {
        return freq;
    }
    if (wavelength > s->original_context / s->low_freq_factor) {
        return freq / s->factor;
    }
    const double smooth = (s->original_context / wavelength - s->low_freq_factor) /
                          (s->high_freq_factor - s->low_freq_factor);
    return (1.0 - smooth) * freq / s->factor + smooth * freq;
}

/* The pair, as a real number, that makes n_turns within the original context. */
static double yarn_pair(const rope_scaling *s, double theta, int32_t head_dim, double n_turns)
{
    return head_dim * log(s->original_context / (n_turns * 2.0 * M_PI)) / (2.0 * log(theta));
}

static double yarn_scale(const rope_scaling *s, double theta, int32_t head_dim, int32_t pair,
                         double freq)
{
    double low = yarn_pair(s, theta, head_dim, s->beta_fast);
    double high = yarn_pair(s, theta, head_dim, s->beta_slow);
    if (s->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0.0);
    high = fmin(high, head_dim - 1.0);
    if (low == high) {
        high += SINGULAR;
    }
    const double ramp = fmin(fmax((pair - low) / (high - low), 0.0), 1.0);
    return freq / s->factor * ramp + freq * (1.0 - ramp);
}

void rope_frequencies(double theta, const rope_scaling *scaling, int32_t head_dim,
                      float *inv_freq_out)
{
    for (int32_t i = 0; i < head_dim / 2; i++) {
        double freq = pow(theta, -2.0 * i / head_dim);
        switch (scaling->kind) {
        case ROPE_DEFAULT: break;
        case ROPE_LINEAR: freq /= scaling->factor; break;
        case ROPE_LLAMA3: freq = llama3_scale(scaling, freq); break;
        case ROPE_YARN: freq = yarn_scale(scaling, theta, head_dim, i, freq); break;
        }
        inv_freq_out[i] = (float)freq;
    }
}

float rope_softmax_scale(const rope_scaling *scaling, int32_t head_dim)
{
    const double a = scaling->kind == ROPE_YARN ? scaling->attention_factor : 1.0;
    return (float)(a * a / sqrt((double)head_dim));
}
