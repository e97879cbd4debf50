/* kernels/cuda/cuda_window.h - the scratch of prefill attention: blocks as the flash kernel's shared memory wants
 * them, and the kernel that fills it.
 *
 *   images  [slot][Hkv][2][head_dim / 64][128][64]  halves, pieces of 16 bytes swizzled (cuda_hopper.h), 2 = K then V
 *   broken  [slot][Hkv][head_dim]  bytes: the first row whose V is NaN or infinite in that dim, 128 if none
 *
 * Values of open rows that are not finite are 0 in V's image, so that rows which do not see them are not touched;
 * the flash kernel puts NaN where they are seen.  Rows of an open block that nobody wrote yet are 0. */
#ifndef KERNELS_CUDA_CUDA_WINDOW_H
#define KERNELS_CUDA_CUDA_WINDOW_H

#include "kernels/op_attn.h"

#include <cuda_fp16.h>
#include <stdint.h>

/* One pass: items [first_item, first_item + n_items) of the sequence's pages followed by its opens, one a slot. */
struct cuda_window {
    kern_attn_seq seq;
    int32_t first_item;
    int32_t n_items;
    int32_t window_blocks;
    int32_t sink_blocks;
    int32_t n_slots;
    bool first; /* no pass of the sequence has written o and lse */
    __half *images;
    uint8_t *broken;
};

static __host__ __device__ inline int64_t cuda_image_halves(int32_t head_dim)
{
    return (int64_t)KERN_BLOCK_TOKENS * head_dim;
}

static __device__ __forceinline__ bool cuda_window_is_open(const cuda_window &w, int32_t slot)
{
    return w.first_item + slot >= w.seq.n_pages;
}

static __device__ __forceinline__ const kern_open *
cuda_window_open(const kern_attn_args &a, const cuda_window &w, int32_t slot)
{
    return &a.opens[w.seq.first_open + w.first_item + slot - w.seq.n_pages];
}

static __device__ __forceinline__ const kern_attn_page *
cuda_window_page(const kern_attn_args &a, const cuda_window &w, int32_t slot)
{
    return &a.page_list[w.seq.first_page + w.first_item + slot];
}

/* Fills the slots of the pass. */
void cuda_window_fill(void *stream, const kern_attn_args &a, const cuda_window &w);

#endif /* KERNELS_CUDA_CUDA_WINDOW_H */
