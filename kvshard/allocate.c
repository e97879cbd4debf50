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
