#include "kernels/op_gated.h"

#include "kernels/backend.h"

base_status kern_gated(struct kern_ctx *ctx, const kern_gated_args *args)
{
    if (args->m < 0 || args->f < 1 || args->k < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "gated shape m %d, f %d, k %d", args->m, args->f, args->k);
    }
    return args->m == 0 ? BASE_OK : ctx->backend->gated(ctx, args);
}
