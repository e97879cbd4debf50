/* base/random.h - a counter-based generator: bits are a pure function of
 * (seed, stream, index), so results depend on no order, thread or rank.
 *
 * Source: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdint.h>

uint64_t base_random_u64(uint64_t seed, uint64_t stream, uint64_t index);

/* Uniform in [0, 1), 53 bits. */
double base_random_unit(uint64_t seed, uint64_t stream, uint64_t index);

/* Standard normal (Box-Muller over two words of one counter). */
double base_random_normal(uint64_t seed, uint64_t stream, uint64_t index);

#endif /* BASE_RANDOM_H */
