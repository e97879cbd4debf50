#include "kernels/cpu/cpu_rotate.h"

#include "kernels/cpu/cpu_clones.h"

#include <math.h>

/* Walsh-Hadamard in Sylvester order: log2(n) passes of sums and differences. */
static inline __attribute__((always_inline)) void hadamard(float *x, int32_t n)
{
    for (int32_t half = 1; half < n; half *= 2) {
        for (int32_t i = 0; i < n; i += 2 * half) {
            for (int32_t j = i; j < i + half; j++) {
                const float a = x[j];
                const float b = x[j + half];
                x[j] = a + b;
                x[j + half] = a - b;
            }
        }
    }
}

CPU_CLONES void cpu_rotate(const kern_side *side, bool inverse, float *x)
{
    for (int32_t s = 0; s < side->n_segments; s++) {
        const int32_t n = side->segments[s].n_dims;
        const float *signs = side->signs + side->segments[s].first_dim;
        float *y = x + side->segments[s].first_dim;
        const float scale = 1.0f / sqrtf((float)n);

        for (int32_t i = 0; i < n && !inverse; i++) {
            y[i] *= signs[i];
        }
        hadamard(y, n);
        for (int32_t i = 0; i < n; i++) {
            y[i] *= inverse ? scale * signs[i] : scale;
        }
    }
}
