#include "kernels/memory.h"

#include "kernels/backend.h"

#include <string.h>

const base_alloc *kern_memory(struct kern_ctx *ctx)
{
    return ctx->far == NULL ? &ctx->mem : &ctx->far->memory;
}

const base_alloc *kern_mirror(struct kern_ctx *ctx)
{
    return ctx->far == NULL ? &ctx->mem : &ctx->far->mirror;
}

base_status kern_send(struct kern_ctx *ctx, const void *mirror, size_t n_bytes)
{
    return ctx->far == NULL ? BASE_OK : ctx->far->send(ctx->far->ctx, mirror, n_bytes);
}

base_status kern_fetch(struct kern_ctx *ctx, void *mirror, size_t n_bytes)
{
    return ctx->far == NULL ? BASE_OK : ctx->far->fetch(ctx->far->ctx, mirror, n_bytes);
}

base_status kern_fetch_begin(struct kern_ctx *ctx, const void *mirror, size_t n_bytes, void *to)
{
    if (ctx->far != NULL) {
        return ctx->far->fetch_begin(ctx->far->ctx, mirror, n_bytes, to);
    }
    if (n_bytes > 0) {
        memcpy(to, mirror, n_bytes);
    }
    return BASE_OK;
}

base_status kern_fetch_end(struct kern_ctx *ctx)
{
    return ctx->far == NULL ? BASE_OK : ctx->far->fetch_end(ctx->far->ctx);
}

base_status kern_bind(struct kern_ctx *ctx, const void *bytes, size_t n_bytes)
{
    return ctx->far == NULL ? BASE_OK : ctx->far->bind(ctx->far->ctx, bytes, n_bytes);
}

base_status kern_bind_formats(struct kern_ctx *ctx, const kern_head_format *formats,
                              int32_t n_layers, int32_t n_kv_heads)
{
    return ctx->far == NULL ? BASE_OK
                            : ctx->far->bind_formats(ctx->far->ctx, formats, n_layers, n_kv_heads);
}

void kern_unbind(struct kern_ctx *ctx, const void *bytes)
{
    if (ctx->far != NULL) {
        ctx->far->unbind(ctx->far->ctx, bytes);
    }
}

base_status kern_wait(struct kern_ctx *ctx)
{
    return ctx->far == NULL ? BASE_OK : ctx->far->wait(ctx->far->ctx);
}
