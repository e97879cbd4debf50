#include "kernels/op_rmsnorm.h"

#include "kernels/backend.h"

base_status kern_rmsnorm(struct kern_ctx *ctx, const kern_rmsnorm_args *args)
{
    if (args->rows < 0 || args->cols < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "rmsnorm shape [%d, %d]", args->rows, args->cols);
    }
    return ctx->backend->rmsnorm(ctx, args);
}
