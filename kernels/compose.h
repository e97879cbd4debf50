/* kernels/compose.h - ops that are others one after the other, for a backend whose one launch does not take the shape.
 * Only backends include it, and comms that merge by themselves.
 *
 * The parts are called over ctx->backend; arguments are the op's own, which its front door has checked. */
#ifndef KERNELS_COMPOSE_H
#define KERNELS_COMPOSE_H

#include "kernels/kern.h"

/* Norm, then a product and its bias for each part. */
BASE_MUST_CHECK base_status kern_compose_project(kern_ctx *ctx, const kern_project_args *args);
/* The projections, then swiglu. */
BASE_MUST_CHECK base_status kern_compose_gated(kern_ctx *ctx, const kern_gated_args *args);

/* The projections of a gated op: gate into y, up into room. */
kern_project_args kern_gated_projections(const kern_gated_args *args);

/* What takes outputs o [n_tokens, H, D] out of V's basis, in place: of attn with leaves_basis, of merge with formats. */
kern_basis_args kern_outputs_basis(float *o, const kern_head_format *formats, int32_t n_tokens,
                                   int32_t n_heads, int32_t n_kv_heads, int32_t head_dim);

#endif /* KERNELS_COMPOSE_H */
