#include "kernels/replay.h"

#include "kernels/backend.h"

base_status kern_replay(struct kern_ctx *ctx, const kern_replay_key *key, bool *done_out)
{
    *done_out = false;
    return ctx->recorder == NULL ? BASE_OK : ctx->recorder->replay(ctx, key, done_out);
}

base_status kern_record_begin(struct kern_ctx *ctx)
{
    return ctx->recorder == NULL ? BASE_OK : ctx->recorder->begin(ctx);
}

base_status kern_record_end(struct kern_ctx *ctx, const kern_replay_key *key, base_status st)
{
    return ctx->recorder == NULL ? st : ctx->recorder->end(ctx, key, st);
}

base_status kern_replay_or_record(struct kern_ctx *ctx, const kern_replay_key *key,
                                  base_status (*ops)(void *arg), void *arg)
{
    base_status st = BASE_OK;
    bool done = false;

    BASE_TRY(st, out, kern_replay(ctx, key, &done));
    if (!done) {
        BASE_TRY(st, out, kern_record_begin(ctx));
        st = kern_record_end(ctx, key, ops(arg));
    }
out:
    return st;
}
