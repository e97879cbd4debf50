/* kvshard/codebook.h - scalar codebooks for N(0, 1): converged Lloyd-Max tables of 1..8 bits.
 *
 * For bits <= 4 the centroids are int8 levels times a scale, so that a tensor-core kernel and the CPU
 * hold the same values: {38, 127}, {13, 40, 71, 114}, and m + 1/2 for {5, 16, 27, 39, 52, 67, 86, 114}; 1 bit is
 * exact anyway.  The scale minimises the distortion D = E (z - Q(z))^2 with thresholds at the midpoints:
 * 0.045 % above Lloyd-Max at most.
 * Divide by sqrt(d) for the unit sphere in d dims. */
#ifndef KVSHARD_CODEBOOK_H
#define KVSHARD_CODEBOOK_H

#include <stdint.h>

#define KV_MAX_CODE_BITS 8

/* The exact Lloyd-Max centroids [2^bits], ascending; bits 1..8. */
void kv_codebook_lloyd_max(int32_t bits, double *centroids_out);
/* What pages use: the integer sets for bits <= 4, else Lloyd-Max. */
void kv_codebook_page(int32_t bits, double *centroids_out);
/* E (z - Q(z))^2 for z ~ N(0, 1), nearest centroid. */
double kv_codebook_distortion(int32_t bits, const double *centroids);

#endif /* KVSHARD_CODEBOOK_H */
