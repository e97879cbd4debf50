#include "kernels/op_append.h"

#include "kernels/backend.h"
#include "kernels/format_check.h"

base_status kern_append(struct kern_ctx *ctx, const kern_append_args *args)
{
    base_status st = BASE_OK;

    if (args->n_tokens < 0 || args->n_opens < 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "append of %d tokens to %d open blocks", args->n_tokens,
                         args->n_opens);
    }
    if (args->q != NULL &&
        (args->n_heads < 1 || args->n_kv_heads < 1 || args->n_heads % args->n_kv_heads != 0)) {
        return BASE_FAIL(BASE_BAD_INPUT, "append: %d query heads over %d KV heads", args->n_heads,
                         args->n_kv_heads);
    }
    BASE_TRY(st, out,
             kern_formats_check("append", args->formats, args->n_kv_heads, args->head_dim));
    for (int32_t i = 0; i < args->n_opens; i++) {
        if (args->opens[i].n_carry < 0 || args->opens[i].n_carry > KERN_BLOCK_TOKENS) {
            return BASE_FAIL(BASE_BAD_INPUT, "append: open block %d carries %d rows, allowed 0..%d",
                             i, args->opens[i].n_carry, KERN_BLOCK_TOKENS);
        }
    }
    for (int32_t t = 0; t < args->n_tokens && args->k != NULL; t++) {
        if (args->dest[t] < -1 || args->dest[t] >= args->n_opens || args->positions[t] < 0) {
            return BASE_FAIL(BASE_BAD_INPUT, "append: token %d at position %lld to open %d of %d",
                             t, (long long)args->positions[t], args->dest[t], args->n_opens);
        }
    }
    st = ctx->backend->append(ctx, args);
out:
    return st;
}
