/* The ops that it is made of, one after the other. */
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
    const base_status st = kern_cpu_gemm(ctx, &product);
    return st != BASE_OK || p->bias == NULL ? st : kern_cpu_bias(ctx, &bias);
}

base_status kern_cpu_project(kern_ctx *ctx, const kern_project_args *a)
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
    base_status st = kern_cpu_rmsnorm(ctx, &norm);
    for (int32_t i = 0; i < a->n_parts && st == BASE_OK; i++) {
        st = one_part(ctx, a, &a->parts[i]);
    }
    return st;
}
