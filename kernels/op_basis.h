/* kernels/op_basis.h - turns query or output rows into, or out of, the page basis.
 *
 * forward:  x[t, h, :] = the page basis of its KV head's side (page.h): order, then rotation
 * inverse:  its transpose.  KV head of query head h is h / (H / Hkv).  Heads without order and signs stay as
 *           they are.  Where K has query_signs it is they that count, both ways: so forward is for queries, and inverse
 *           takes rows of K back to the model's dims.
 *
 *   x  [T, H, D]  f32, in place
 *
 * Limits.    D 64 or 128; T >= 0; H a multiple of Hkv.
 * Numerics.  f32; inverse(forward(x)) = x within 1e-6 of the row's norm, but where K has query_signs.
 * Errors.    BAD_INPUT, DEVICE_LOST. */
#ifndef KERNELS_OP_BASIS_H
#define KERNELS_OP_BASIS_H

#include "base/status.h"
#include "kernels/page.h"

#include <stdbool.h>
#include <stdint.h>

struct kern_ctx;

typedef struct kern_basis_args {
    float *x;
    const kern_head_format *formats; /* [Hkv] of this layer */
    int32_t n_tokens;
    int32_t n_heads;
    int32_t n_kv_heads;
    int32_t head_dim;
    bool v_side; /* false: K's basis (queries); true: V's (outputs) */
    bool inverse;
} kern_basis_args;

BASE_MUST_CHECK base_status kern_basis(struct kern_ctx *ctx, const kern_basis_args *args);

#endif /* KERNELS_OP_BASIS_H */
