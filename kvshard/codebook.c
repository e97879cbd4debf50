#include "kvshard/codebook.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#define MAX_SET_LEVELS 8 /* positive half of 4 bits */

static const double lloyd_max_halves[] = {
#include "kvshard/lloyd_max.def"
};

static const struct {
    int32_t bits;
    double scale;
    double half[MAX_SET_LEVELS];
} level_sets[] = {
#define X(bits, scale, ...) {bits, scale, {__VA_ARGS__}},
#include "kvshard/level_sets.def"
#undef X
};

static void mirror(int32_t bits, const double *half, double scale, double *centroids_out)
{
    const int32_t n_half = 1 << (bits - 1);
    for (int32_t i = 0; i < n_half; i++) {
        centroids_out[n_half + i] = scale * half[i];
        centroids_out[n_half - 1 - i] = -scale * half[i];
    }
}

void kv_codebook_lloyd_max(int32_t bits, double *centroids_out)
{
    assert(bits >= 1 && bits <= KV_MAX_CODE_BITS);
    mirror(bits, lloyd_max_halves + (1 << (bits - 1)) - 1, 1.0, centroids_out);
}

void kv_codebook_page(int32_t bits, double *centroids_out)
{
    for (size_t i = 0; i < sizeof level_sets / sizeof level_sets[0]; i++) {
        if (level_sets[i].bits == bits) {
            mirror(bits, level_sets[i].half, level_sets[i].scale, centroids_out);
            return;
        }
    }
    kv_codebook_lloyd_max(bits, centroids_out);
}

/* Integral of phi and of z phi up to z. */
static double mass_below(double z)
{
    return 0.5 * erf(z / sqrt(2.0));
}

static double minus_phi(double z)
{
    return -exp(-0.5 * z * z) / sqrt(2.0 * 3.141592653589793);
}

double kv_codebook_distortion(int32_t bits, const double *centroids)
{
    const int32_t n = 1 << bits;
    double total = 1.0; /* E z^2; each cell then adds E (c^2 - 2 c z) */
    double low_mass = -0.5;
    double low_first = 0.0;

    for (int32_t i = 0; i < n; i++) {
        const double c = centroids[i];
        const double high = i + 1 < n ? 0.5 * (c + centroids[i + 1]) : INFINITY;
        const double high_mass = mass_below(high);
        const double high_first = minus_phi(high);
        total += c * c * (high_mass - low_mass) - 2.0 * c * (high_first - low_first);
        low_mass = high_mass;
        low_first = high_first;
    }
    return total;
}
