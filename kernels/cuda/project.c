/* Projections and the gated half of an MLP: one launch for few rows, the ops that they are made of for many. */
#include "kernels/cuda/cuda_gemm.h"
#include "kernels/cuda/cuda_linear.h"
#include "kernels/cuda/cuda_ops.h"

static base_status one_part(cuda_gemm *gemm, void *stream, const kern_project_args *a,
                            const kern_project_part *p)
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
    const base_status st = kern_cuda_gemm(gemm, stream, &product);
    return st != BASE_OK || p->bias == NULL ? st : kern_cuda_bias(stream, &bias);
}

/* False: some tensor is not as cuda_linear.h takes it. */
static bool as_linear(const kern_project_args *a, cuda_linear *linear_out)
{
    cuda_linear l = {
        .x = a->x,
        .norm = a->norm,
        .n_parts = a->n_parts,
        .m = a->m,
        .k = a->k,
        .x_stride = a->k,
        .eps = a->eps,
    };
    bool fits = cuda_linear_fits(a->m, a->k, a->k) && a->norm_dtype == BASE_BF16;
    for (int32_t i = 0; i < a->n_parts; i++) {
        const kern_project_part *p = &a->parts[i];
        fits = fits && p->dtype == BASE_BF16;
        l.parts[i] = (cuda_linear_part){.w = p->w,
                                        .bias = p->bias,
                                        .y = p->y,
                                        .n = p->n,
                                        .y_stride = p->n,
                                        .bias_dtype = p->bias_dtype};
    }
    *linear_out = l;
    return fits;
}

static base_status project_many(cuda_gemm *gemm, void *stream, const kern_project_args *a)
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
    base_status st = kern_cuda_rmsnorm(stream, &norm);
    for (int32_t i = 0; i < a->n_parts && st == BASE_OK; i++) {
        st = one_part(gemm, stream, a, &a->parts[i]);
    }
    return st;
}

base_status kern_cuda_project(cuda_gemm *gemm, void *stream, const kern_project_args *a)
{
    cuda_linear linear;
    return as_linear(a, &linear) ? cuda_linear_run(stream, &linear) : project_many(gemm, stream, a);
}

base_status kern_cuda_gated(cuda_gemm *gemm, void *stream, const kern_gated_args *a)
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
    cuda_linear linear;
    if (as_linear(&products, &linear)) {
        linear.gated = true;
        return cuda_linear_run(stream, &linear);
    }
    const base_status st = project_many(gemm, stream, &products);
    return st == BASE_OK ? kern_cuda_swiglu(stream, &gate) : st;
}
