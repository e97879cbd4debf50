/* kernels/cuda/cuda_prefill.h - op_attn.h for many queries a sequence: pages become rows of halves in a fixed window
 * of scratch, a flash kernel on tensor cores reads them, and the windows' results are merged by log-sum-exp.
 *
 * Pages lie in CUDA fragment order (fragment.h).  Arguments as in cuda_ops.h, formats included; args->seqs and
 * n_seqs are not read: the sequences come from host memory, because how many launches there are depends on them.
 *
 * Numerics.  scale * q, K, V and the weights relative to a row's maximum are rounded to fp16 (values beyond 65504
 *            become 65504), sums are f32: |o - ref| <= 1e-3 * max|V|, |lse - ref| <= 2e-3 + 1e-6 |ref| for rows whose
 *            logits are of the size of a trained model's, and 2^-10 * scale |q||K_j| in a logit at worst.
 *            NaN as in op_attn.h; an infinity in an open row counts as NaN.
 * Cost.      4 T n D operations a head for T queries over n positions; 4 D bytes of scratch written and, from L2,
 *            read a position and head. */
#ifndef KERNELS_CUDA_CUDA_PREFILL_H
#define KERNELS_CUDA_CUDA_PREFILL_H

#include "base/status.h"
#include "kernels/op_attn.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_PREFILL_BLOCKS 128 /* of a window: 16384 positions */

typedef struct cuda_prefill_work {
    const kern_attn_seq
        *seqs; /* [n_seqs], host memory: whom to serve; rows of others are left alone */
    int32_t n_seqs;
    int32_t n_blocks; /* of the window, 1..CUDA_PREFILL_BLOCKS */
    void *workspace;  /* device, cuda_prefill_workspace_bytes, 1024-byte aligned */
} cuda_prefill_work;

int64_t cuda_prefill_workspace_bytes(int32_t n_kv_heads, int32_t head_dim, int32_t n_blocks);

/* Enqueues two launches a window and sequence.  Errors: DEVICE_LOST. */
BASE_MUST_CHECK base_status cuda_prefill(void *stream, const cuda_prefill_work *work,
                                         const kern_attn_args *args);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_CUDA_PREFILL_H */
