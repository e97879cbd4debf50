#include "kernels/cpu/cpu_rotate.h"

#include "kernels/cpu/cpu_clones.h"

#include <math.h>
#include <string.h>

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

/* Rows of the circulants of page.h, by m / 2. */
static const float mixers[4][7] = {
    {1.0f},
    {1.0f / 3, -2.0f / 3, -2.0f / 3},
    {0.6f, -0.4f, -0.4f, -0.4f, -0.4f},
    {0.445903002f, 0.445903002f, 0.445903002f, -0.261203875f, 0.445903002f, -0.261203875f,
     -0.261203875f},
};

/* Mixes m parts of h values: y = (M (x) I) x, or with M's transpose. */
static void mix(float *x, int32_t m, int32_t h, bool inverse)
{
    const float *row = mixers[m / 2];
    for (int32_t d = 0; d < h; d++) {
        float part[7];
        for (int32_t j = 0; j < m; j++) {
            part[j] = x[j * h + d];
        }
        for (int32_t i = 0; i < m; i++) {
            float sum = 0.0f;
            for (int32_t j = 0; j < m; j++) {
                sum += row[(inverse ? i - j + m : j - i + m) % m] * part[j];
            }
            x[i * h + d] = sum;
        }
    }
}

static inline __attribute__((always_inline)) void rotate_part(float *y, const float *signs,
                                                              int32_t n, bool inverse)
{
    const float scale = 1.0f / sqrtf((float)n);
    for (int32_t i = 0; i < n && !inverse; i++) {
        y[i] *= signs[i];
    }
    hadamard(y, n);
    for (int32_t i = 0; i < n; i++) {
        y[i] *= inverse ? scale * signs[i] : scale;
    }
}

CPU_CLONES static void rotate(const kern_side *side, const float *signs, bool inverse, float *x)
{
    for (int32_t s = 0; s < side->n_segments; s++) {
        const int32_t n = side->segments[s].n_dims;
        const int32_t h = n % 7 == 0 ? n / 7 : n % 5 == 0 ? n / 5 : n % 3 == 0 ? n / 3 : n;
        const int32_t first = side->segments[s].first_dim;
        float *y = x + first;

        if (inverse && h != n) {
            mix(y, n / h, h, true);
        }
        for (int32_t at = 0; at < n; at += h) {
            rotate_part(y + at, signs + first + at, h, inverse);
        }
        if (!inverse && h != n) {
            mix(y, n / h, h, false);
        }
    }
}

void cpu_rotate(const kern_side *side, const float *signs, bool inverse, float *x)
{
    const uint16_t *order = side->order;
    float model[KERN_MAX_HEAD_DIM];
    int32_t head_dim = 0;

    for (int32_t s = 0; s < side->n_segments; s++) {
        head_dim += side->segments[s].n_dims;
    }
    if (order != NULL && !inverse) {
        memcpy(model, x, (size_t)head_dim * sizeof *x);
        for (int32_t j = 0; j < head_dim; j++) {
            x[j] = model[order[j]];
        }
    }
    if (signs != NULL) {
        rotate(side, signs, inverse, x);
    }
    if (order != NULL && inverse) {
        for (int32_t j = 0; j < head_dim; j++) {
            model[order[j]] = x[j];
        }
        memcpy(x, model, (size_t)head_dim * sizeof *x);
    }
}
