/* kernels/cuda/pack_search.cuh - codes of wide books, 6 bits and more: no value is divided.
 *
 * |x| times the reciprocal of the row's length is within two units in the last place of the quotient of which the
 * code is made.  A table of cells at equal steps gives the one threshold that it has to be compared with; where the two are
 * so close that the quotient may lie on the other side, eight values are divided (pack_divide).  Books are symmetric,
 * thresholds more than a cell apart (pack_cells_make); others have every row divided. */
#ifndef KERNELS_CUDA_PACK_SEARCH_CUH
#define KERNELS_CUDA_PACK_SEARCH_CUH

#include "kernels/cuda/pack_divide.cuh"

/* All threads; they synchronise before it is read.  floats: centroids, then thresholds.  Returns whether the table is
 * right for the book. */
__device__ __forceinline__ bool pack_cells_make(pack_book &k, const float *floats, int bits)
{
    const int n = (1 << (bits - 1)) - 1; /* positive thresholds */
    const float *thresholds = floats + (2 << bits) - 1 - n;
    const float last = thresholds[n - 1];
    const pack_cells c = {(float)(PACK_CELLS - 2) / last,
                          last * (1.0f + 1.0f / (float)(PACK_CELLS - 2)), last * 0x1p-22f};
    bool fits = true;
    for (int i = threadIdx.x; i <= n; i += PACK_ROWS) {
        const int from = i == 0 ? 0 : c.of(thresholds[i - 1] + c.margin) + 1;
        const int to =
            i == n ? PACK_CELLS - 1 : min(c.of(thresholds[i] + c.margin), PACK_CELLS - 1);
        fits = fits && (i == 0 || i == n || c.of(thresholds[i] - c.margin) >= from);
        for (int cell = from; cell <= to; cell++) {
            k.cell[cell] = (uint8_t)i;
        }
    }
    if (threadIdx.x == 0) {
        k.cells = c;
        k.thresholds[2 * n + 1] = INFINITY; /* after the last */
    }
    return fits;
}

/* Codes in place of values; returns the sum of their squares. */
template <int B>
__device__ __forceinline__ float pack_search(const pack_book &k, const pack_divisor &by, int n_dims,
                                             uint4 *row)
{
    constexpr int n = (1 << (B - 1)) - 1;
    const pack_cells c = k.cells;
    const __nv_bfloat162 none = __float2bfloat162_rn(0.0f);
    float sum = 0.0f;
    for (int d = 0; d < n_dims / 8; d++) {
        uint4 v = row[d];
        uint32_t *word = (uint32_t *)&v;
        float searched = sum;
        float nearest = INFINITY;
#pragma unroll
        for (int w = 0; w < 4; w++) {
            const uint32_t below = ~__hgt2_mask(*(const __nv_bfloat162 *)&word[w], none);
            uint32_t magnitude[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float x = h == 0 ? pack_even(word[w]) : pack_odd(word[w]);
                const float u = fabsf(x) * by.inverse;
                const uint32_t guess = k.cell[c.of(u)];
                const float left = k.thresholds[n + 1 + guess] - u;
                nearest = fminf(nearest, fabsf(left));
                magnitude[h] = guess + (__float_as_uint(left) >> 31); /* it is not 0 */
                searched += k.squares[n + 1 + magnitude[h]];
            }
            word[w] = pack_signed<B>(
                magnitude[0] * pack_step<B> | magnitude[1] * (pack_step<B> << 16), below);
        }
        if (nearest > c.margin) {
            row[d] = v;
            sum = searched;
        } else {
            sum = pack_divide<B>(k, by, false, 8, (uint32_t *)(row + d), sum);
        }
    }
    return sum;
}

#endif /* KERNELS_CUDA_PACK_SEARCH_CUH */
