#include "kernels/op_deal.h"

#include "kernels/backend.h"

base_status kern_deal(struct kern_ctx *ctx, const kern_deal_args *args)
{
    const int32_t n = args->n_ranks;
    if (args->n_tokens < 0 || args->head_dim < 4 || args->head_dim % 4 != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "deal of %d tokens, head_dim %d", args->n_tokens,
                         args->head_dim);
    }
    if (n < 1 || n > KERN_DEAL_MAX_RANKS) {
        return BASE_FAIL(BASE_BAD_INPUT, "deal to %d ranks, allowed 1..%d", n, KERN_DEAL_MAX_RANKS);
    }
    for (int32_t r = 0; r < n; r++) {
        if (args->begins[r + 1] <= args->begins[r]) {
            return BASE_FAIL(BASE_BAD_INPUT, "deal: rank %d has heads %d..%d", r, args->begins[r],
                             args->begins[r + 1] - 1);
        }
    }
    if (args->begins[0] != 0 || args->begins[n] != args->n_heads) {
        return BASE_FAIL(BASE_BAD_INPUT, "deal: ranks have heads %d..%d of %d", args->begins[0],
                         args->begins[n] - 1, args->n_heads);
    }
    return ctx->backend->deal(ctx, args);
}
