#include "kernels/kern.h"

#include "kernels/backend.h"

void kern_ctx_destroy(kern_ctx *ctx)
{
    if (ctx != NULL) {
        ctx->backend->destroy(ctx);
    }
}
