#include "kernels/compose.h"
#include "kernels/cuda/cuda_linear.h"

bool cuda_linear_project(const kern_project_args *a, cuda_linear *linear_out)
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

bool cuda_linear_gated(const kern_gated_args *args, cuda_linear *linear_out)
{
    const kern_project_args projections = kern_gated_projections(args);
    const bool fits = cuda_linear_project(&projections, linear_out);
    linear_out->gated = true;
    return fits;
}
