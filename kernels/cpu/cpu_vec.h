/* kernels/cpu/cpu_vec.h - eight floats at a time, in the compilers' vector types.
 *
 * All functions are inlined into callers that carry CPU_CLONES. */
#ifndef KERNELS_CPU_CPU_VEC_H
#define KERNELS_CPU_CPU_VEC_H

#include "base/dtype.h"
#include "base/half.h"

#include <stdint.h>
#include <string.h>

#define CPU_LANES  8
#define CPU_INLINE static inline __attribute__((always_inline))

typedef float cpu_f8 __attribute__((vector_size(32)));
typedef uint32_t cpu_u8 __attribute__((vector_size(32)));
typedef uint16_t cpu_h8 __attribute__((vector_size(16)));

CPU_INLINE cpu_f8 cpu_f8_load(const float *p)
{
    cpu_f8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

CPU_INLINE void cpu_f8_store(float *p, cpu_f8 v)
{
    memcpy(p, &v, sizeof v);
}

CPU_INLINE cpu_f8 cpu_f8_all(float x)
{
    return (cpu_f8){x, x, x, x, x, x, x, x};
}

/* yes where mask is all ones, no where it is 0. */
CPU_INLINE cpu_f8 cpu_f8_select(cpu_u8 mask, cpu_f8 yes, cpu_f8 no)
{
    return (cpu_f8)((mask & (cpu_u8)yes) | (~mask & (cpu_u8)no));
}

/* NaN in b is passed over. */
CPU_INLINE cpu_f8 cpu_f8_max(cpu_f8 a, cpu_f8 b)
{
    return cpu_f8_select((cpu_u8)(b > a), b, a);
}

/* A fixed tree, the same on every machine. */
CPU_INLINE float cpu_f8_sum(cpu_f8 v)
{
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

CPU_INLINE float cpu_f8_top(cpu_f8 v)
{
    float top = v[0];
    for (int i = 1; i < CPU_LANES; i++) {
        top = v[i] > top ? v[i] : top;
    }
    return top;
}

CPU_INLINE cpu_f8 cpu_f8_from_bf16(const uint16_t *p)
{
    cpu_h8 h;
    memcpy(&h, p, sizeof h);
    return (cpu_f8)(__builtin_convertvector(h, cpu_u8) << 16);
}

/* Exact for every half, subnormals, infinities and NaN included. */
CPU_INLINE cpu_f8 cpu_f8_from_f16(const uint16_t *p)
{
    cpu_h8 h;
    memcpy(&h, p, sizeof h);
    const cpu_u8 u = __builtin_convertvector(h, cpu_u8);
    const cpu_u8 mag = (u & 0x7fffu) << 13;
    const cpu_u8 special = (cpu_u8)(mag >= 0x0f800000u) & 0x7f800000u;
    const cpu_f8 f = (cpu_f8)mag * cpu_f8_all(0x1p112f);
    return (cpu_f8)((cpu_u8)f | special | ((u & 0x8000u) << 16));
}

/* Eight elements from index i of a tensor. */
CPU_INLINE cpu_f8 cpu_f8_elems(const void *p, int64_t i, base_dtype t)
{
    switch (t) {
    case BASE_F32: return cpu_f8_load((const float *)p + i);
    case BASE_F16: return cpu_f8_from_f16((const uint16_t *)p + i);
    case BASE_BF16: return cpu_f8_from_bf16((const uint16_t *)p + i);
    }
    return cpu_f8_all(0.0f);
}

CPU_INLINE float cpu_elem(const void *p, int64_t i, base_dtype t)
{
    switch (t) {
    case BASE_F32: return ((const float *)p)[i];
    case BASE_F16: return base_f32_from_f16(((const uint16_t *)p)[i]);
    case BASE_BF16: return base_f32_from_bf16(((const uint16_t *)p)[i]);
    }
    return 0.0f;
}

/* exp for x <= 88, within 2e-7 relative; 0 below -87; NaN stays NaN.
 * Method: x = n ln 2 + r, |r| <= ln 2 / 2; polynomial of the Cephes library for e^r. */
CPU_INLINE cpu_f8 cpu_f8_exp(cpu_f8 x)
{
    const cpu_f8 magic = cpu_f8_all(0x1.8p23f); /* adding it rounds to an integer */
    const cpu_f8 t = x * 1.44269504f + magic;
    const cpu_f8 n = t - magic;
    const cpu_f8 r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    cpu_f8 y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = (y * (r * r) + r) + 1.0f;
    const cpu_u8 power = ((cpu_u8)t - (cpu_u8)magic + 127u) << 23;
    return cpu_f8_select((cpu_u8)(x < -87.0f), cpu_f8_all(0.0f), y * (cpu_f8)power);
}

#endif /* KERNELS_CPU_CPU_VEC_H */
