#include "kernels/op_turns.h"

#include "kernels/backend.h"
#include "kernels/page.h"

base_status kern_turns(struct kern_ctx *ctx, const kern_turns_args *args)
{
    if (args->head_dim < 2 || args->head_dim > KERN_MAX_HEAD_DIM || args->head_dim % 2 != 0 ||
        args->n_tokens < 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "turns: %d tokens, head_dim %d, even and 2..%d",
                         args->n_tokens, args->head_dim, KERN_MAX_HEAD_DIM);
    }
    for (int32_t t = 0; t < args->n_tokens; t++) {
        if (args->positions[t] < 0 || args->positions[t] > INT32_MAX) {
            return BASE_FAIL(BASE_BAD_INPUT, "turns: token %d at position %lld, allowed 0..%d", t,
                             (long long)args->positions[t], INT32_MAX);
        }
    }
    return ctx->backend->turns(ctx, args);
}
