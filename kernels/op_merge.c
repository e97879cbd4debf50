#include "kernels/op_merge.h"

#include "kernels/backend.h"
#include "kernels/format_check.h"

base_status kern_merge(struct kern_ctx *ctx, const kern_merge_args *args)
{
    base_status st = BASE_OK;

    if (args->n_ranks < 1 || args->rows < 0 || args->head_dim < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "merge of %d ranks, rows %d, head_dim %d", args->n_ranks,
                         args->rows, args->head_dim);
    }
    if (args->rank_stride < (int64_t)args->rows * (args->head_dim + 1LL)) {
        return BASE_FAIL(BASE_BAD_INPUT, "merge: rank_stride %lld for %d rows of %d and lse",
                         (long long)args->rank_stride, args->rows, args->head_dim);
    }
    if (args->formats != NULL) {
        if (args->n_heads < 1 || args->n_kv_heads < 1 || args->n_heads % args->n_kv_heads != 0 ||
            args->rows % args->n_heads != 0) {
            return BASE_FAIL(BASE_BAD_INPUT, "merge: %d rows of %d heads over %d KV heads",
                             args->rows, args->n_heads, args->n_kv_heads);
        }
        BASE_TRY(st, out,
                 kern_formats_check("merge", args->formats, args->n_kv_heads, args->head_dim));
    }
    st = ctx->backend->merge(ctx, args);
out:
    return st;
}
