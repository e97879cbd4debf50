#include "kernels/op_basis.h"

#include "kernels/backend.h"
#include "kernels/format_check.h"

base_status kern_basis(struct kern_ctx *ctx, const kern_basis_args *args)
{
    base_status st = BASE_OK;

    if (args->n_tokens < 0 || args->n_heads < 1 || args->n_kv_heads < 1 ||
        args->n_heads % args->n_kv_heads != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "basis: %d tokens, %d heads over %d KV heads",
                         args->n_tokens, args->n_heads, args->n_kv_heads);
    }
    BASE_TRY(st, out, kern_formats_check("basis", args->formats, args->n_kv_heads, args->head_dim));
    st = ctx->backend->basis(ctx, args);
out:
    return st;
}
