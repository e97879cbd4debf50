/* The ops that it is made of, one after the other. */
#include "kernels/backend.h"

base_status kern_cpu_gated(kern_ctx *ctx, const kern_gated_args *a)
{
    const kern_project_args products = {
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
    const kern_swiglu_args gate = {
        .gate = a->y, .up = a->room, .y = a->y, .n_tokens = a->m, .width = a->f};
    const base_status st = kern_cpu_project(ctx, &products);
    return st == BASE_OK ? kern_cpu_swiglu(ctx, &gate) : st;
}
