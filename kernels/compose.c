#include "kernels/compose.h"

#include "kernels/backend.h"

static base_status one_part(kern_ctx *ctx, const kern_project_args *a, const kern_project_part *p)
{
    const kern_gemm_args product = {
        .x = a->h,
        .w = p->w,
        .y = p->y,
        .m = a->m,
        .n = p->n,
        .k = a->k,
        .x_stride = a->k,
        .y_stride = p->n,
        .dtype = p->dtype,
    };
    const kern_bias_args bias = {
        .x = p->y, .bias = p->bias, .rows = a->m, .cols = p->n, .dtype = p->bias_dtype};
    const base_status st = ctx->backend->gemm(ctx, &product);
    return st != BASE_OK || p->bias == NULL ? st : ctx->backend->bias(ctx, &bias);
}

base_status kern_compose_project(kern_ctx *ctx, const kern_project_args *a)
{
    const kern_rmsnorm_args norm = {
        .x = a->x,
        .weight = a->norm,
        .y = a->h,
        .rows = a->m,
        .cols = a->k,
        .eps = a->eps,
        .dtype = a->norm_dtype,
    };
    base_status st = ctx->backend->rmsnorm(ctx, &norm);
    for (int32_t i = 0; i < a->n_parts && st == BASE_OK; i++) {
        st = one_part(ctx, a, &a->parts[i]);
    }
    return st;
}

kern_project_args kern_gated_projections(const kern_gated_args *a)
{
    const kern_project_args p = {
        .x = a->x,
        .norm = a->norm,
        .h = a->h,
        .parts = {{.w = a->gate, .y = a->y, .n = a->f, .dtype = a->gate_dtype},
                  {.w = a->up, .y = a->room, .n = a->f, .dtype = a->up_dtype}},
        .n_parts = 2,
        .m = a->m,
        .k = a->k,
        .eps = a->eps,
        .norm_dtype = a->norm_dtype,
    };
    return p;
}

base_status kern_compose_gated(kern_ctx *ctx, const kern_gated_args *a)
{
    const kern_project_args projections = kern_gated_projections(a);
    const kern_swiglu_args gate = {
        .gate = a->y, .up = a->room, .y = a->y, .n_tokens = a->m, .width = a->f};
    const base_status st = kern_compose_project(ctx, &projections);
    return st == BASE_OK ? ctx->backend->swiglu(ctx, &gate) : st;
}

kern_basis_args kern_outputs_basis(float *o, const kern_head_format *formats, int32_t n_tokens,
                                   int32_t n_heads, int32_t n_kv_heads, int32_t head_dim)
{
    const kern_basis_args b = {
        .x = o,
        .formats = formats,
        .n_tokens = n_tokens,
        .n_heads = n_heads,
        .n_kv_heads = n_kv_heads,
        .head_dim = head_dim,
        .v_side = true,
        .inverse = true,
    };
    return b;
}
