/* kernels/cuda/linear_ring.cuh - which tiles of w a CTA of linear.cu takes, and how they come to it: a warp's steps, some
 * ahead, into a ring of its own in shared memory.
 *
 * A tile is eight rows of w, of a gated pair four of either, so that a lane's neighbour holds what it needs.  CTAs go
 * side by side: tile i of a CTA is tile blockIdx.x + i * gridDim.x of all parts' tiles in a row. */
#ifndef KERNELS_CUDA_LINEAR_RING_CUH
#define KERNELS_CUDA_LINEAR_RING_CUH

#include "kernels/cuda/cuda_linear.h"

#include <cuda_bf16.h>
#include <stdint.h>

#define LINEAR_WARPS       8
#define LINEAR_TILE_ROWS   8
#define LINEAR_BLOCK       32 /* columns that the 16 bytes of four lanes are */
#define LINEAR_STEP_BLOCKS 2  /* a line of 128 bytes from each row */
#define LINEAR_STEP        (LINEAR_STEP_BLOCKS * LINEAR_BLOCK)
#define LINEAR_TILE_BYTES  (LINEAR_TILE_ROWS * LINEAR_STEP * 2) /* of a step */

static __device__ __forceinline__ void linear_copy(uint32_t to, const void *from, bool there)
{
    const int n_bytes = there ? 16 : 0; /* what is not there is zero */
    asm volatile("cp.async.cg.shared.global.L2::128B [%0],[%1],16,%2;" ::"r"(to), "l"(from),
                 "r"(n_bytes)
                 : "memory");
}

static __device__ __forceinline__ void linear_copies_end()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int kPending>
static __device__ __forceinline__ void linear_copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/* A tile: of which part, and which of its tiles.  Beyond the last one it is beyond the last part's rows. */
struct linear_place {
    int part;
    int tile;

    __device__ __forceinline__ void advance(const cuda_linear &a, int n_tiles)
    {
        tile += n_tiles;
#pragma unroll 1
        while (!a.gated && part + 1 < a.n_parts && tile * LINEAR_TILE_ROWS >= a.parts[part].n) {
            tile -= (a.parts[part++].n + LINEAR_TILE_ROWS - 1) / LINEAR_TILE_ROWS;
        }
    }

    /* Row r of the tile among its part's. */
    __device__ __forceinline__ int row(const cuda_linear &a, int r) const
    {
        return a.gated ? tile * (LINEAR_TILE_ROWS / 2) + r % (LINEAR_TILE_ROWS / 2)
                       : tile * LINEAR_TILE_ROWS + r;
    }
};

/* Puts a warp's steps into its ring, in the order in which they are taken. */
template <int kTiles>
struct linear_feeder {
    const __nv_bfloat16 *rows[kTiles]; /* the lane's, of the run of tiles that is under way */
    linear_place next;                 /* after that run */
    int n_tiles;                       /* left, with that run */
    int first_col;                     /* of the lane */
    int col;                           /* of the lane, in the warp's next step */

    __device__ __forceinline__ void begin(const cuda_linear &a)
    {
        const int r = threadIdx.x % 32 / 4;
        col = first_col;
#pragma unroll
        for (int i = 0; i < kTiles; i++) {
            const cuda_linear_part &part =
                a.parts[a.gated ? r / (LINEAR_TILE_ROWS / 2) : next.part];
            const int row = next.row(a, r); /* past the last: the last, whose sums nobody takes */
            rows[i] = static_cast<const __nv_bfloat16 *>(part.w) +
                      (int64_t)(row < part.n ? row : part.n - 1) * a.k;
            next.advance(a, (int)gridDim.x);
        }
    }

    /* The next step, or nothing after the last one, as a group of copies. */
    __device__ __forceinline__ void feed(const cuda_linear &a, uint32_t slot)
    {
        if (n_tiles > 0) {
#pragma unroll
            for (int i = 0; i < kTiles; i++) {
                if (i < n_tiles) {
#pragma unroll
                    for (int j = 0; j < LINEAR_STEP_BLOCKS; j++) {
                        const int c = col + j * LINEAR_BLOCK;
                        linear_copy(slot + i * LINEAR_TILE_BYTES + j * 512,
                                    rows[i] + (c < a.k ? c : 0), c < a.k);
                    }
                }
            }
            col += LINEAR_WARPS * LINEAR_STEP;
            if (col - first_col % LINEAR_BLOCK >= a.k) { /* the same for all lanes */
                n_tiles -= kTiles;
                if (n_tiles > 0) {
                    begin(a);
                }
            }
        }
        linear_copies_end();
    }
};

#endif /* KERNELS_CUDA_LINEAR_RING_CUH */
