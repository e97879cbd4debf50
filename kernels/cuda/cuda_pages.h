/* kernels/cuda/cuda_pages.h - KV pages on the GPU: formats, the page writer, decode attention.
 *
 * Codes lie in CUDA fragment order (fragment.h), which only this folder knows.  stream is a cudaStream_t;
 * nothing here waits for it, and every call may be captured into a graph.  Errors: DEVICE_LOST, NO_MEMORY. */
#ifndef KERNELS_CUDA_CUDA_PAGES_H
#define KERNELS_CUDA_CUDA_PAGES_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/op_attn.h"
#include "kernels/op_pack.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The formats of one layer's heads, digested for the kernels: tables in device memory, choices on the host.
 * Immutable; any thread. */
typedef struct kern_cuda_formats kern_cuda_formats;

/* formats [n_kv_heads], host memory, not kept.  Waits for a small copy.  BAD_INPUT: a head that does not
 * fit (fragment.h), or affine heads beside others. */
BASE_MUST_CHECK base_status kern_cuda_formats_create(const kern_head_format *formats,
                                                     int32_t n_kv_heads, int32_t head_dim,
                                                     const base_alloc *mem,
                                                     kern_cuda_formats **formats_out);
void kern_cuda_formats_destroy(kern_cuda_formats *formats); /* NULL is fine */

/* op_pack.h: every pointer of args, and opens[].rows, in device memory; args->formats is not read.  Bytes are
 * the CPU writer's, permuted. */
BASE_MUST_CHECK base_status kern_cuda_pack(void *stream, const kern_cuda_formats *formats,
                                           const kern_pack_args *args);

/* Device bytes that a step's attention needs as scratch, whatever its sizes: calls that follow each other on one
 * stream share them. */
int64_t kern_cuda_attn_workspace_bytes(void);

typedef struct kern_cuda_attn_work {
    const kern_cuda_formats *formats;
    void *workspace; /* device, kern_cuda_attn_workspace_bytes */
    int32_t
        max_seq_tokens; /* no sequence of the step has more queries; 1..8 is what this is made for */
    /* No kernel that the stream may still be running writes seqs, page_list, opens or a page: they are read before
     * the launch before has ended.  q and rows are not. */
    bool pages_are_old;
} kern_cuda_attn_work;

/* op_attn.h, one launch for all sequences and KV heads and one that merges the parts: every pointer of args, and
 * opens[].rows, in device memory and 16-byte aligned, args->formats read with leaves_basis only.  seqs, page_list and
 * opens are read by the kernels only, so a graph replays with new ones; n_seqs, n_tokens and max_seq_tokens are fixed.
 * A sequence with n_tokens 0 is passed over.
 *
 * Numerics.  Against fp64 on the dequantised values, in the norm of o, for keys of like lengths and logits of a few
 *            units; it grows with scale |q| |K_j|, and lse is off by at most 2e-5 of that more than op_attn.h says.
 *            2e-4: no bf16 segment.  Centroids as 8-bit levels (4 bits: and a half) where they are that, else as 16-bit
 *                  ones, queries in 15 bits (up to 4 query rows a KV head) or 16, weights in 16 relative to a page's largest,
 *                  sums exact.
 *            1e-4: affine pages.  Queries times K's scales and weights times V's as two 16-bit floats each, kept to 2^-25 of
 *                  the largest query element and of the largest weight of the page; f32 sums of codes and of minima, which
 *                  mostly cancel: of values that average out, o is far shorter than what is summed.
 *            5e-5: all other pages.  Queries, weights and centroids as two 16-bit floats each (bf16 values as they are),
 *                  f32 sums; so are open rows everywhere. */
BASE_MUST_CHECK base_status kern_cuda_attn(void *stream, const kern_cuda_attn_work *work,
                                           const kern_attn_args *args);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_CUDA_PAGES_H */
