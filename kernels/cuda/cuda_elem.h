/* kernels/cuda/cuda_elem.h - elements of any dtype as f32 on the device, one or eight at a time, and the casts of
 * base/half.h bit for bit. */
#ifndef KERNELS_CUDA_CUDA_ELEM_H
#define KERNELS_CUDA_CUDA_ELEM_H

#include "base/dtype.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

/* The element type of W in f32. */
__device__ __forceinline__ float cuda_f32(float x)
{
    return x;
}

__device__ __forceinline__ float cuda_f32(__half x)
{
    return __half2float(x);
}

__device__ __forceinline__ float cuda_f32(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

/* bf16 bits as base_bf16_from_f32 gives them: a NaN keeps its sign and payload. */
__device__ __forceinline__ uint16_t cuda_bf16_bits(float x)
{
    const uint32_t u = __float_as_uint(x);
    if (isnan(x)) {
        return static_cast<uint16_t>((u >> 16) | 0x40u);
    }
    return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/* The nearest half, and the largest for all beyond it; NaN stays NaN. */
__device__ __forceinline__ __half cuda_f16_nearest(float x)
{
    constexpr float kMost = 65504.0f; /* comparisons let NaN through */
    return __float2half_rn(x > kMost ? kMost : x < -kMost ? -kMost : x);
}

/* Eight neighbours, from an address that is a multiple of their size. */
__device__ __forceinline__ void cuda_load8(const float *p, float out[8])
{
    const float4 a = reinterpret_cast<const float4 *>(p)[0];
    const float4 b = reinterpret_cast<const float4 *>(p)[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

template <typename W>
__device__ __forceinline__ void cuda_load8(const W *p, float out[8])
{
    static_assert(sizeof(W) == 2, "eight of them are 16 bytes");
    const uint4 raw = *reinterpret_cast<const uint4 *>(p);
    W w[8];
    memcpy(w, &raw, sizeof w);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        out[i] = cuda_f32(w[i]);
    }
}

/* Four neighbours, likewise. */
__device__ __forceinline__ void cuda_load4(const float *p, float out[4])
{
    const float4 v = *reinterpret_cast<const float4 *>(p);
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
}

template <typename W>
__device__ __forceinline__ void cuda_load4(const W *p, float out[4])
{
    static_assert(sizeof(W) == 2, "four of them are 8 bytes");
    const uint2 raw = *reinterpret_cast<const uint2 *>(p);
    W w[4];
    memcpy(w, &raw, sizeof w);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[i] = cuda_f32(w[i]);
    }
}

__device__ __forceinline__ void cuda_store8(float *p, const float in[8])
{
    reinterpret_cast<float4 *>(p)[0] = make_float4(in[0], in[1], in[2], in[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(in[4], in[5], in[6], in[7]);
}

#endif /* KERNELS_CUDA_CUDA_ELEM_H */
