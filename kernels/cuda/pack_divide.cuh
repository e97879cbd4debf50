/* kernels/cuda/pack_divide.cuh - codes of values of any row by any book, by division and search in the thresholds. */
#ifndef KERNELS_CUDA_PACK_DIVIDE_CUH
#define KERNELS_CUDA_PACK_DIVIDE_CUH

#include "kernels/cuda/formats.h"
#include "kernels/cuda/pack_words.cuh"

#include <cuda_bf16.h>

#define PACK_MAX_BOOK 256
#define PACK_CELLS    512

/* Cells at equal steps from 0 to the largest threshold (pack_search.cuh). */
struct pack_cells {
    float per_unit;
    float last;   /* what lies above is in the last cell, too */
    float margin; /* a quotient, searched for by its estimate, is this far from a threshold */

    __device__ __forceinline__ int of(float u) const
    {
        const float rounded = fmaf(fminf(u, last), per_unit, 0x1p23f);
        return (int)(__float_as_uint(rounded) % (2 * PACK_CELLS));
    }
};

struct pack_book {
    float squares[PACK_MAX_BOOK]; /* of centroids */
    float thresholds[PACK_MAX_BOOK];
    pack_cells cells;
    uint8_t cell[PACK_CELLS]; /* the first positive threshold that may lie above values in it */
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

/* Codes in place of values, of any row; returns sum and the sum of their squares. */
template <int B>
__device__ __forceinline__ float pack_divide(const pack_book &k, const pack_divisor &by,
                                             bool is_empty, int n_dims, uint32_t *row, float sum)
{
#pragma unroll 1
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

#endif /* KERNELS_CUDA_PACK_DIVIDE_CUH */
