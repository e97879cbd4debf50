#include "kernels/op_merge.h"

#include "kernels/backend.h"

base_status kern_merge(struct kern_ctx *ctx, const kern_merge_args *args)
{
    if (args->n_ranks < 1 || args->rows < 0 || args->head_dim < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "merge of %d ranks, rows %d, head_dim %d", args->n_ranks,
                         args->rows, args->head_dim);
    }
    if (args->rank_stride < (int64_t)args->rows * (args->head_dim + 1LL)) {
        return BASE_FAIL(BASE_BAD_INPUT, "merge: rank_stride %lld for %d rows of %d and lse",
                         (long long)args->rank_stride, args->rows, args->head_dim);
    }
    return ctx->backend->merge(ctx, args);
}
