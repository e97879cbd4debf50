#include "kernels/comm/comm_merge.h"

#include "kernels/comm/comm_backend.h"

base_status comm_merge(comm *c, kern_ctx *ctx, const kern_merge_args *args, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    const float *mine = args->partials + comm_rank(c) * args->rank_stride;
    float *all = (float *)(uintptr_t)args->partials; /* the caller's, who lets it be filled */

    if (c->backend->merge != NULL && c->backend->can_merge(c, args)) {
        return c->backend->merge(c, args);
    }
    BASE_TRY(st, out,
             comm_all_gather(c, mine, all, (size_t)args->rank_stride * sizeof(float), timeout_ms));
    st = kern_merge(ctx, args);
out:
    return st;
}

base_status comm_merge_own(comm *c, kern_ctx *ctx, const kern_deal_args *deal,
                           const kern_merge_args *merge, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    const size_t head_bytes = (size_t)deal->n_tokens * ((size_t)deal->head_dim + 1) * sizeof(float);
    float *received = (float *)(uintptr_t)merge->partials; /* as in comm_merge */

    if (c->backend->merge_own != NULL && c->backend->can_merge_own(c, deal, merge)) {
        return c->backend->merge_own(c, deal, merge);
    }
    BASE_TRY(st, out, kern_deal(ctx, deal));
    BASE_TRY(st, out, comm_all_to_all(c, deal->y, received, deal->begins, head_bytes, timeout_ms));
    st = kern_merge(ctx, merge);
out:
    return st;
}

static bool attends_at_once(const comm *c, const kern_ctx *ctx, const kern_attn_args *attn,
                            const kern_deal_args *deal, const kern_merge_args *merge)
{
    return c->backend->attend != NULL && c->backend->can_attend(c, ctx, attn, deal, merge);
}

static base_status attend_at_once(comm *c, const kern_attn_args *attn, const kern_deal_args *deal,
                                  const kern_merge_args *merge)
{
    const base_status st = kern_attn_check(attn);
    return st == BASE_OK ? c->backend->attend(c, attn, deal, merge) : st;
}

base_status comm_attend(comm *c, kern_ctx *ctx, const kern_attn_args *attn,
                        const kern_merge_args *merge, int64_t timeout_ms)
{
    if (attends_at_once(c, ctx, attn, NULL, merge)) {
        return attend_at_once(c, attn, NULL, merge);
    }
    const base_status st = kern_attn(ctx, attn);
    return st == BASE_OK ? comm_merge(c, ctx, merge, timeout_ms) : st;
}

base_status comm_attend_own(comm *c, kern_ctx *ctx, const kern_attn_args *attn,
                            const kern_deal_args *deal, const kern_merge_args *merge,
                            int64_t timeout_ms)
{
    if (attends_at_once(c, ctx, attn, deal, merge)) {
        return attend_at_once(c, attn, deal, merge);
    }
    const base_status st = kern_attn(ctx, attn);
    return st == BASE_OK ? comm_merge_own(c, ctx, deal, merge, timeout_ms) : st;
}
