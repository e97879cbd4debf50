/* kernels/cuda/pack_encode.cuh - the codes and the norm of one row of a codebook segment (op_pack.h), one thread a row.
 *
 * Sums go in ascending order and every operation is the CPU's, so every byte is.  Compiled without contraction of a
 * multiply and an add; where one is meant it says fmaf.
 *
 * Up to 5 bits nothing is divided but the thresholds' own neighbours: a quotient rounds monotonously, so for every
 * threshold there is a largest bf16 value whose quotient by the row's length is not above it.  Books are symmetric, so
 * the magnitude of a code is searched for among half of the limits, for two dims at once.  Wider books have a table to
 * search with (pack_search.cuh).  Rows and books that neither is for are divided. */
#ifndef KERNELS_CUDA_PACK_ENCODE_CUH
#define KERNELS_CUDA_PACK_ENCODE_CUH

#include "kernels/cuda/pack_search.cuh"

#include <cuda_fp16.h>

#define PACK_LARGEST_HALF 0x7bff
#define PACK_MAX_LIMITS   5 /* bits */

/* All threads; they synchronise before it is read.  Returns whether rows need not be divided: the book is symmetric,
 * its thresholds such that pack_limits or pack_search is right for them. */
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
            if (bits <= PACK_MAX_LIMITS && t > 0.0f && i < n - 2) { /* a bf16 lies between */
                fits = fits && floats[n + i + 1] >= t * (1.0f + 0x1p-6f);
            }
        }
    }
    return bits <= PACK_MAX_LIMITS ? fits : pack_cells_make(k, floats, bits) && fits;
}

/* Elements that are -x become the value after it, away from zero. */
__device__ __forceinline__ void pack_move_out(uint32_t *row, int n_dims, uint16_t x)
{
    const __nv_bfloat162 moved = __bfloat162bfloat162(__ushort_as_bfloat16(x | 0x8000));
#pragma unroll 4
    for (int w = 0; w < n_dims / 2; w++) {
        row[w] += __heq2_mask(*(const __nv_bfloat162 *)&row[w], moved) & 0x10001u;
    }
}

/* Both halves of limit[i]: the largest bf16 whose quotient by nu, 2^-34 .. 2^15, is not above positive threshold i: the
 * bf16 nearest to t nu or the one before it.  Where a quotient is a threshold, the limit of negative values is the
 * one before: those move out of the row's way, to a value of the same code. */
template <int B>
__device__ __forceinline__ void pack_limits(const pack_book &k, const pack_divisor &by, int n_dims,
                                            uint32_t *row, __nv_bfloat162 *limit)
{
    constexpr int n = (1 << (B - 1)) - 1;
    const float *thresholds = k.thresholds + n + 1;
    const auto nearest = [&](int i) {
        return __bfloat16_as_ushort(__float2bfloat16_rn(thresholds[i] * by.nu));
    };
    bool has_ties = false;
#pragma unroll
    for (int i = 0; i < n; i++) {
        const float t = thresholds[i];
        const uint16_t near = nearest(i);
        const float quotient = by.divide_middling(pack_even(near));
        has_ties = has_ties || quotient == t;
        limit[i] = __bfloat162bfloat162(__ushort_as_bfloat16(near - (quotient > t ? 1 : 0)));
    }
#pragma unroll 1
    for (int i = 0; has_ties && i < n; i++) {
        if (by.divide_middling(pack_even(nearest(i))) == thresholds[i]) {
            pack_move_out(row, n_dims, nearest(i));
        }
    }
}

/* Of two magnitudes: how many of the limits, 2^(B - 1) - 1 in ascending order, are below, times pack_step. */
template <int B>
__device__ __forceinline__ uint32_t pack_magnitude(__nv_bfloat162 x, const __nv_bfloat162 *limit)
{
    uint32_t left[1 << (B - 1)]; /* after each comparison half of the limits */
    uint32_t magnitude = 0;
#pragma unroll
    for (int i = 0; i < (1 << (B - 1)) - 1; i++) {
        left[i] = *(const uint32_t *)&limit[i];
    }
#pragma unroll
    for (int n = (1 << B) / 4; n > 0; n /= 2) {
        const uint32_t above = __hgt2_mask(x, *(const __nv_bfloat162 *)&left[n - 1]);
        magnitude -= above * (n * pack_step<B> * 0x10001u); /* all ones in a half: n more */
#pragma unroll
        for (int i = 0; i < n - 1; i++) {
            left[i] = (left[i + n] & above) | (left[i] & ~above);
        }
    }
    return magnitude;
}

/* Codes in place of values; returns the sum of their squares. */
template <int B>
__device__ __forceinline__ float pack_compare(const pack_book &k, const __nv_bfloat162 *limit,
                                              int n_dims, uint4 *row)
{
    constexpr int n = (1 << (B - 1)) - 1;
    const uint32_t squares = ptx_shared(k.squares + n + 1);
    const __nv_bfloat162 none = __float2bfloat162_rn(0.0f);
    float sum = 0.0f;
#pragma unroll 2
    for (int d = 0; d < n_dims / 8; d++) {
        uint4 v = row[d];
        uint32_t *word = (uint32_t *)&v;
#pragma unroll
        for (int w = 0; w < 4; w++) {
            const __nv_bfloat162 x = *(const __nv_bfloat162 *)&word[w];
            const uint32_t magnitude = pack_magnitude<B>(__habs2(x), limit);
            /* Products with 1 and 0 take a half where comparisons do not wait for them. */
            sum += ptx_load_shared(__dp2a_lo(magnitude, 0x0001u, squares));
            sum += ptx_load_shared(__dp2a_lo(magnitude, 0x0100u, squares));
            word[w] = pack_signed<B>(magnitude, ~__hgt2_mask(x, none));
        }
        row[d] = v;
    }
    return sum;
}

/* The sum of the squares of n_dims values. */
template <bool kFused>
__device__ __forceinline__ float pack_squares(const uint4 *row, int n_dims)
{
    float sum = 0.0f;
#pragma unroll 2
    for (int d = 0; d < n_dims / 8; d++) {
        const uint4 v = row[d];
        const uint32_t word[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int w = 0; w < 4; w++) {
            const float a = pack_even(word[w]);
            const float b = pack_odd(word[w]);
            sum = kFused ? fmaf(a, a, sum) : sum + a * a;
            sum = kFused ? fmaf(b, b, sum) : sum + b * b;
        }
    }
    return sum;
}

/* row: n_dims bf16 values, 16-byte aligned; becomes codes.  Returns the norm. */
template <int B>
__device__ __forceinline__ uint16_t pack_encode(const pack_book &k, bool is_common, int n_dims,
                                                uint32_t *row)
{
    /* The square of a bf16 value is a float, unless it is below the normal ones: beside a sum of 2^-100 that is nothing,
     * so a fused sum is the same once a row begins so. */
    const float sum = fabsf(pack_even(row[0])) >= 0x1p-50f
                          ? pack_squares<true>((const uint4 *)row, n_dims)
                          : pack_squares<false>((const uint4 *)row, n_dims);
    const float nu = __fsqrt_rn(sum);
    const bool is_empty = !(nu > 1e-10f); /* true for NaN as well */
    const pack_divisor by = {nu, __frcp_rn(nu), nu > 0x1p-34f && nu < 0x1p60f};

    const bool has_estimates = is_common && by.is_middling && !is_empty && nu < 0x1p15f;
    float code_sum;
    if (!has_estimates) {
        code_sum = pack_divide<B>(k, by, is_empty, n_dims, row, 0.0f);
    } else if constexpr (B <= PACK_MAX_LIMITS) {
        __nv_bfloat162 limit[1 << (B - 1)];
        pack_limits<B>(k, by, n_dims, row, limit);
        code_sum = pack_compare<B>(k, limit, n_dims, (uint4 *)row);
    } else {
        code_sum = pack_search<B>(k, by, n_dims, (uint4 *)row);
    }
    if (is_empty) {
        return 0;
    }
    const uint16_t norm = __half_as_ushort(__float2half_rn(__fdiv_rn(nu, __fsqrt_rn(code_sum))));
    return norm > PACK_LARGEST_HALF ? PACK_LARGEST_HALF : norm;
}

#endif /* KERNELS_CUDA_PACK_ENCODE_CUH */
