/* kernels/cuda/pack_rows.cuh - one side of a head page in shared memory: bf16 values, then, in their place, codes.
 *
 *   word [128][pitch]  two dims a word; a code is the low byte of its half
 * Rows start at multiples of 16 bytes, four banks apart: eight lanes read 16 bytes each of eight rows at once, whether
 * every thread walks along its row or a warp loads matrices. */
#ifndef KERNELS_CUDA_PACK_ROWS_CUH
#define KERNELS_CUDA_PACK_ROWS_CUH

#include "kernels/cuda/formats.h"
#include "kernels/cuda/fragment_order.h"
#include "kernels/cuda/ptx.cuh"

#define PACK_ROWS KERN_BLOCK_TOKENS /* and threads of a CTA, one a row */

template <int D>
struct pack_rows {
    static constexpr int pitch = D / 2 + 4;
    uint32_t word[PACK_ROWS * pitch];

    /* Of dims dim and dim + 1. */
    __device__ uint32_t *at(int token, int dim)
    {
        return word + token * pitch + dim / 2;
    }
};

/* What a lane holds of a pair (fragment_order.h): codes n = 0..3 and 4..7, a byte each. */
struct pack_pair {
    uint32_t low;
    uint32_t high;
};

/* from: [128][D] bf16, 16-byte aligned; kThreads: of the CTA.  The caller waits (ptx_copies_wait) and synchronises. */
template <int D, int kThreads>
__device__ __forceinline__ void pack_rows_load(pack_rows<D> &rows, const uint16_t *from)
{
    constexpr int kElems = 8;                      /* of 16 bytes */
    constexpr int kAtOnce = kThreads * kElems / D; /* rows */
    const int at = threadIdx.x * kElems;
    const uint32_t to = ptx_shared(rows.at(at / D, at % D));
    from += at;
#pragma unroll
    for (int i = 0; i < PACK_ROWS / kAtOnce; i++) {
        ptx_copy_16(to + i * kAtOnce * rows.pitch * (int)sizeof(uint32_t), from + i * kAtOnce * D);
    }
}

/* Rows of the side that is `ahead` CTAs later come into the L2 cache while this one computes. */
template <int D>
__device__ __forceinline__ void pack_rows_ahead(const kern_pack_args &a, unsigned ahead)
{
    const unsigned n_sides = 2 * (unsigned)a.n_kv_heads;
    const unsigned i = blockIdx.x + ahead;
    if (threadIdx.x == 0 && i < gridDim.x) {
        const uint16_t *rows = a.opens[a.packs[i / n_sides].open].rows;
        ptx_ask_for(rows + (int64_t)(i % n_sides) * PACK_ROWS * D, PACK_ROWS * D * sizeof *rows);
    }
}

/* The pairs of a tile; first_dim: of the segment, in the row. */
template <int D, int kPairs>
__device__ __forceinline__ void pack_pairs_of_k(pack_rows<D> &rows, const fragment_tile &t,
                                                int first_dim, pack_pair *pair)
{
    const fragment_spot s = fragment_code_at(0, t, 0, threadIdx.x % 32, 0);
    const uint32_t *base = rows.at(s.token, first_dim + s.dim);
#pragma unroll
    for (int p = 0; p < kPairs; p++) {
        const int u = kPairs == 8 ? p / 2 : p;
        const int b = kPairs == 8 ? p % 2 : 0;
        const uint32_t *from = base + u * FRAGMENT_SQUARE * rows.pitch + b * FRAGMENT_SQUARE / 2;
        const uint2 x = *(const uint2 *)from;
        const uint2 y = *(const uint2 *)(from + 8 * rows.pitch);
        pair[p] = {ptx_prmt(x.x, x.y, 0x6420), ptx_prmt(y.x, y.y, 0x6420)};
    }
}

template <int D>
__device__ __forceinline__ void pack_pairs_of_v(pack_rows<D> &rows, const fragment_tile &t,
                                                int first_dim, pack_pair *pair)
{
    const int lane =
        threadIdx.x % 32; /* matrices: tokens 0.. and 8.. of dims 0.., then of dims 8.. */
    const uint32_t base = ptx_shared(rows.at(lane % 16, first_dim + t.first_dim + lane / 16 * 8));
#pragma unroll
    for (int p = 0; p < 8; p++) {
        const uint4 m = ptx_load_matrices_transposed(base + p * FRAGMENT_SQUARE * rows.pitch *
                                                                (int)sizeof(uint32_t));
        pair[p] = {ptx_prmt(m.x, m.y, 0x6240), ptx_prmt(m.z, m.w, 0x6240)};
    }
}

/* Dims first_dim .. + n_dims as bf16 values of a page; kWarps: of the CTA. */
template <int D, int kWarps>
__device__ __forceinline__ void pack_plain(pack_rows<D> &rows, int first_dim, int n_dims, int side,
                                           uint8_t *values)
{
    const int lane = threadIdx.x % 32;
    const int i = lane % 16;
    const int k = lane / 16 * 8;
    const int n_squares = KERN_BLOCK_TOKENS / 16 * n_dims / 16;
    const int n_across = (side == 0 ? n_dims : KERN_BLOCK_TOKENS) / 16;
    for (int n = threadIdx.x / 32; n < n_squares; n += kWarps) {
        const int row = n / n_across * 16;
        const int col = n % n_across * 16;
        *(uint4 *)(values + n * 512 + lane * 16) =
            side == 0 ? ptx_load_matrices(ptx_shared(rows.at(row + i, first_dim + col + k)))
                      : ptx_load_matrices_transposed(
                            ptx_shared(rows.at(col + i % 8 + k, first_dim + row + i / 8 * 8)));
    }
}

/* All threads: zeros where a head's page has nothing, with side 0. */
template <int kThreads>
__device__ __forceinline__ void pack_gaps(const cuda_head *head, int side, uint8_t *page)
{
    for (int i = 0; i < head->n_gaps && side == 0; i++) {
        for (int b = head->gaps[i].begin + (int)threadIdx.x * 16; b < head->gaps[i].end;
             b += kThreads * 16) {
            *(uint4 *)(page + b) = make_uint4(0, 0, 0, 0);
        }
    }
}

#endif /* KERNELS_CUDA_PACK_ROWS_CUH */
