#include "base/random.h"

#include <math.h>

/* The ten rounds of Philox4x32; key = seed, counter = (index, stream). */
static void philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4])
{
    uint32_t c[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream,
                     (uint32_t)(stream >> 32)};
    uint32_t k0 = (uint32_t)seed;
    uint32_t k1 = (uint32_t)(seed >> 32);

    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xd2511f53u * c[0];
        const uint64_t p1 = (uint64_t)0xcd9e8d57u * c[2];
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[0] = n0;
        c[1] = (uint32_t)p1;
        c[2] = n2;
        c[3] = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    for (int i = 0; i < 4; i++) {
        out[i] = c[i];
    }
}

static uint64_t word(const uint32_t w[4], int i)
{
    return (uint64_t)w[2 * i] | (uint64_t)w[2 * i + 1] << 32;
}

static double unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

uint64_t base_random_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t w[4];
    philox(seed, stream, index, w);
    return word(w, 0);
}

double base_random_unit(uint64_t seed, uint64_t stream, uint64_t index)
{
    return unit(base_random_u64(seed, stream, index));
}

double base_random_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t w[4];
    philox(seed, stream, index, w);
    const double radius = sqrt(-2.0 * log(1.0 - unit(word(w, 0)))); /* 1 - u is in (0, 1] */
    return radius * cos(6.283185307179586 * unit(word(w, 1)));
}
