#include "kernels/op_project.h"

#include "kernels/backend.h"

base_status kern_project(struct kern_ctx *ctx, const kern_project_args *args)
{
    if (args->m < 0 || args->k < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "project shape m %d, k %d", args->m, args->k);
    }
    if (args->n_parts < 1 || args->n_parts > KERN_PROJECT_PARTS) {
        return BASE_FAIL(BASE_BAD_INPUT, "project: %d parts, allowed 1..%d", args->n_parts,
                         KERN_PROJECT_PARTS);
    }
    for (int32_t i = 0; i < args->n_parts; i++) {
        if (args->parts[i].n < 1) {
            return BASE_FAIL(BASE_BAD_INPUT, "project: part %d of %d rows", i, args->parts[i].n);
        }
    }
    return args->m == 0 ? BASE_OK : ctx->backend->project(ctx, args);
}
