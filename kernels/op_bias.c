#include "kernels/op_bias.h"

#include "kernels/backend.h"

base_status kern_bias(struct kern_ctx *ctx, const kern_bias_args *args)
{
    if (args->rows < 0 || args->cols < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "bias shape [%d, %d]", args->rows, args->cols);
    }
    return ctx->backend->bias(ctx, args);
}
