/* kernels/op_append.h - brings K and V of a step into the page basis and stores them as bf16 rows, and the queries
 * that go with them into it too.
 *
 * With turns, q and k are turned first, as op_rope.h turns them; without, they have been.
 * For each open block with carry: rows[0..n_carry) of every head and side are copied from carry.
 * Then for each token t with dest[t] >= 0, head h, side s in {K, V}:
 *   opens[dest[t]].rows[h][s][positions[t] % 128][:] = bf16(basis_s(x[t, h, :]))
 * where basis_s is the order and rotation of formats[h].k or .v (page.h), computed in f32.
 * With q, q[t, h, :] becomes basis_K(q[t, h, :]) of KV head h / (H / Hkv), as op_basis.h has it.
 *
 *   q          [T, H, D]    f32, in place; or NULL
 *   k, v       [T, Hkv, D]  f32; or NULL: q alone, and no positions, dest and opens
 *   turns      [T, D/2, 2]  f32 (op_turns.h); or NULL
 *   positions  [T]
 *   dest       [T]          index into opens, or -1: another rank owns that position
 *   opens      [n_opens]    rows of this layer
 *   formats    [Hkv]        of this layer
 *
 * Aliasing.  rows overlap neither k, v nor their own carry.  The rows of one open block may be the carry of
 *            another (a tail that moves on to a later block): all carries are copied before any token is written.
 * Limits.    T >= 0; 1 <= Hkv; H a multiple of Hkv where there is q; D 64 or 128; dest < n_opens; n_carry 0..128.
 * Numerics.  f32, fixed order; bf16 rounds to nearest even.  Without signs: exactly bf16(x).
 * Errors.    BAD_INPUT (a limit is broken, nothing written), DEVICE_LOST. */
#ifndef KERNELS_OP_APPEND_H
#define KERNELS_OP_APPEND_H

#include "base/status.h"
#include "kernels/page.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_append_args {
    float *q;
    const float *k;
    const float *v;
    const float *turns;
    const int64_t *positions;
    const int32_t *dest;
    const kern_open *opens;
    const kern_head_format *formats;
    int32_t n_tokens;
    int32_t n_heads; /* of q */
    int32_t n_kv_heads;
    int32_t head_dim;
    int32_t n_opens;
} kern_append_args;

BASE_MUST_CHECK base_status kern_append(struct kern_ctx *ctx, const kern_append_args *args);

#endif /* KERNELS_OP_APPEND_H */
