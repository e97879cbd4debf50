#include "kernels/op_rope.h"

#include "kernels/backend.h"
#include "kernels/page.h"

base_status kern_rope(struct kern_ctx *ctx, const kern_rope_args *args)
{
    if (args->head_dim < 2 || args->head_dim > KERN_MAX_HEAD_DIM || args->head_dim % 2 != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "rope: head_dim %d, even and 2..%d", args->head_dim,
                         KERN_MAX_HEAD_DIM);
    }
    if (args->n_tokens < 0 || args->n_heads < 1 ||
        args->x_stride < (int64_t)args->n_heads * args->head_dim) {
        return BASE_FAIL(BASE_BAD_INPUT, "rope: %d tokens, %d heads of %d, x_stride %d",
                         args->n_tokens, args->n_heads, args->head_dim, args->x_stride);
    }
    return ctx->backend->rope(ctx, args);
}
