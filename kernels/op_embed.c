#include "kernels/op_embed.h"

#include "kernels/backend.h"

#include <stdbool.h>

base_status kern_embed(struct kern_ctx *ctx, const kern_embed_args *args)
{
    if (args->n_tokens < 0 || args->n_vocab < 1 || args->width < 1 || args->n_recent < 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "embed of %d tokens in [%d, %d]", args->n_tokens,
                         args->n_vocab, args->width);
    }
    const bool is_part = args->begin >= 0 && args->begin < args->end && args->end <= args->n_vocab;
    if (!is_part && (args->begin != 0 || args->end != 0)) {
        return BASE_FAIL(BASE_BAD_INPUT, "embed: rows of ids %d..%d of %d", args->begin,
                         args->end - 1, args->n_vocab);
    }
    for (int32_t t = 0; t < args->n_tokens; t++) {
        if (args->ids[t] < -args->n_recent || args->ids[t] >= args->n_vocab) {
            return BASE_FAIL(BASE_BAD_INPUT, "embed: token %d has id %d, allowed %d..%d", t,
                             args->ids[t], -args->n_recent, args->n_vocab - 1);
        }
    }
    return ctx->backend->embed(ctx, args);
}
