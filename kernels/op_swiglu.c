#include "kernels/op_swiglu.h"

#include "kernels/backend.h"

base_status kern_swiglu(struct kern_ctx *ctx, const kern_swiglu_args *args)
{
    if (args->n_tokens < 0 || args->width < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "swiglu shape [%d, %d]", args->n_tokens, args->width);
    }
    return ctx->backend->swiglu(ctx, args);
}
