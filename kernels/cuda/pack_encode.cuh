/* kernels/cuda/pack_encode.cuh - the codes and the norm of one row of a codebook segment (op_pack.h), one thread a row.
 *
 * Sums go in ascending order and every operation is the CPU's, so every byte is.  Compiled without contraction of a
 * multiply and an add; where one is meant it says fmaf.
 *
 * Up to 5 bits nothing is divided but the thresholds' own neighbours: a quotient rounds monotonously, so for every
 * threshold there is a largest bf16 value whose quotient by the row's length is not above it.  Books are symmetric, so
 * magnitudes are compared, those of two dims at once, and a sum of ones over the comparisons is the magnitude of
 * the code.  Rows and books that this is not for are divided (pack_divide). */
#ifndef KERNELS_CUDA_PACK_ENCODE_CUH
#define KERNELS_CUDA_PACK_ENCODE_CUH

#include "kernels/cuda/formats.h"
#include "kernels/cuda/pack_words.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define PACK_MAX_BOOK     256
#define PACK_LARGEST_HALF 0x7bff

struct pack_book {
    float squares[PACK_MAX_BOOK]; /* of centroids */
    float thresholds[PACK_MAX_BOOK];
};

/* Correctly rounded x / nu for many x: two corrections of a quotient that is off by less than two units, with
 * the correctly rounded reciprocal (Markstein).  Values near the ends of the range take the instruction. */
struct pack_divisor {
    float nu;
    float inverse;
    bool is_middling;

    /* x is 0 or at least 2^-60, and nu is middling. */
    __device__ float divide_middling(float x) const
    {
        float q = x * inverse;
        q = fmaf(fmaf(-q, nu, x), inverse, q);
        return fmaf(fmaf(-q, nu, x), inverse, q);
    }

    __device__ float divide(float x) const
    {
        return is_middling && fabsf(x) >= 0x1p-60f ? divide_middling(x) : __fdiv_rn(x, nu);
    }
};

__device__ __forceinline__ float pack_even(uint32_t word)
{
    return __uint_as_float(word << 16);
}

__device__ __forceinline__ float pack_odd(uint32_t word)
{
    return __uint_as_float(word & 0xffff0000u);
}

/* All threads; they synchronise before it is read.  Returns whether the book is symmetric, with thresholds that
 * pack_limits is right for. */
__device__ __forceinline__ bool pack_book_load(pack_book &k, const float *floats, int bits)
{
    const int n = 1 << bits;
    bool fits = true;
    for (int i = threadIdx.x; i < n; i += PACK_ROWS) {
        const float c = floats[i];
        k.squares[i] = c * c;
        fits = fits && c == -floats[n - 1 - i];
        if (i < n - 1) {
            const float t = floats[n + i];
            k.thresholds[i] = t;
            fits = fits && t == -floats[n + n - 2 - i] &&
                   (t == 0.0f || (fabsf(t) >= 0x1p-26f && fabsf(t) <= 0x1p20f));
        }
    }
    return fits;
}

/* limit[i]: the largest bf16 whose quotient by nu, 2^-34 .. 2^15, is not above positive threshold i: the bf16 nearest to
 * t nu or the one before it.  Returns false if a quotient is a threshold: then the two signs have different limits. */
template <int B>
__device__ __forceinline__ bool pack_limits(const pack_book &k, const pack_divisor &by,
                                            __nv_bfloat16 *limit)
{
    constexpr int n = (1 << (B - 1)) - 1;
    bool apart = true;
#pragma unroll
    for (int i = 0; i < n; i++) {
        const float t = k.thresholds[n + 1 + i];
        const uint16_t near = __bfloat16_as_ushort(__float2bfloat16_rn(t * by.nu));
        const float quotient = by.divide_middling(pack_even(near));
        apart = apart && quotient != t;
        limit[i] = __ushort_as_bfloat16(near - (quotient > t ? 1 : 0));
    }
    return apart;
}

/* Codes in place of values; returns the sum of their squares. */
template <int B>
__device__ __forceinline__ float pack_compare(const pack_book &k, const __nv_bfloat16 *limit,
                                              int n_dims, uint4 *row)
{
    constexpr int n = (1 << (B - 1)) - 1;
    /* From 32.0 on, 1 is four units in the last place: the offset of a float. */
    const char *squares = (const char *)(k.squares + n + 1) - 0x4200;
    const __nv_bfloat162 none = __float2bfloat162_rn(0.0f);
    float sum = 0.0f;
#pragma unroll 2
    for (int d = 0; d < n_dims / 8; d++) {
        uint4 v = row[d];
        uint32_t *word = (uint32_t *)&v;
#pragma unroll
        for (int w = 0; w < 4; w++) {
            const __nv_bfloat162 x = *(const __nv_bfloat162 *)&word[w];
            const uint32_t plain = word[w] & 0x7fff7fffu;
            __nv_bfloat162 count = __float2bfloat162_rn(32.0f);
#pragma unroll
            for (int i = 0; i < n; i++) {
                count = __hadd2_rn(
                    count, __hgt2(*(const __nv_bfloat162 *)&plain, __bfloat162bfloat162(limit[i])));
            }
            const uint32_t magnitude = *(const uint32_t *)&count;
            sum += *(const float *)(squares + (magnitude & 0xffffu));
            sum += *(const float *)(squares + (magnitude >> 16));
            word[w] = pack_signed<B>(magnitude, ~__hgt2_mask(x, none));
        }
        row[d] = v;
    }
    return sum;
}

template <int B>
__device__ __forceinline__ uint32_t pack_code_of(const pack_book &k, float u)
{
    uint32_t code = 0;
#pragma unroll
    for (int bit = B - 1; bit >= 0; bit--) {
        code += (uint32_t)(k.thresholds[code + (1u << bit) - 1] < u) << bit;
    }
    return code;
}

/* The same for any row. */
template <int B>
__device__ __forceinline__ float pack_divide(const pack_book &k, const pack_divisor &by,
                                             bool is_empty, int n_dims, uint32_t *row)
{
    constexpr int kAtOnce = B <= 5 ? 1 : 4; /* where no row is compared */
    float sum = 0.0f;
#pragma unroll kAtOnce
    for (int w = 0; w < n_dims / 2; w++) {
        const float a = pack_even(row[w]);
        const float b = pack_odd(row[w]);
        const uint32_t x = pack_code_of<B>(k, is_empty ? 0.0f : by.divide(a));
        const uint32_t y = pack_code_of<B>(k, is_empty ? 0.0f : by.divide(b));
        sum += k.squares[x];
        sum += k.squares[y];
        row[w] = pack_held<B>(x) | pack_held<B>(y) << 16;
    }
    return sum;
}

/* row: n_dims bf16 values, 16-byte aligned; becomes codes.  Returns the norm. */
template <int B>
__device__ __forceinline__ uint16_t pack_encode(const pack_book &k, bool has_limits, int n_dims,
                                                uint32_t *row)
{
    float sum = 0.0f;
#pragma unroll 2
    for (int d = 0; d < n_dims / 8; d++) {
        const uint4 v = ((const uint4 *)row)[d];
        const uint32_t word[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int w = 0; w < 4; w++) {
            sum += pack_even(word[w]) * pack_even(word[w]);
            sum += pack_odd(word[w]) * pack_odd(word[w]);
        }
    }
    const float nu = __fsqrt_rn(sum);
    const bool is_empty = !(nu > 1e-10f); /* true for NaN as well */
    const pack_divisor by = {nu, __frcp_rn(nu), nu > 0x1p-34f && nu < 0x1p60f};

    bool is_compared = false;
    float code_sum;
    if constexpr (B <= 5) {
        __nv_bfloat16 limit[1 << (B - 1)];
        is_compared = has_limits && by.is_middling && !is_empty && nu < 0x1p15f &&
                      pack_limits<B>(k, by, limit);
        if (is_compared) {
            code_sum = pack_compare<B>(k, limit, n_dims, (uint4 *)row);
        }
    }
    if (!is_compared) {
        code_sum = pack_divide<B>(k, by, is_empty, n_dims, row);
    }
    if (is_empty) {
        return 0;
    }
    const uint16_t norm = __half_as_ushort(__float2half_rn(__fdiv_rn(nu, __fsqrt_rn(code_sum))));
    return norm > PACK_LARGEST_HALF ? PACK_LARGEST_HALF : norm;
}

#endif /* KERNELS_CUDA_PACK_ENCODE_CUH */
