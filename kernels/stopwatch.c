#include "kernels/stopwatch.h"

#include "base/clock.h"
#include "kernels/backend.h"

base_status kern_stopwatch_start(struct kern_ctx *ctx, kern_stopwatch *watch)
{
    base_status st = BASE_OK;
    if (ctx->recorder != NULL) {
        return ctx->recorder->start(ctx);
    }
    BASE_TRY(st, out, kern_wait(ctx));
    watch->begun_ns = base_now_ns();
out:
    return st;
}

base_status kern_stopwatch_stop(struct kern_ctx *ctx, kern_stopwatch *watch, double *us_out)
{
    base_status st = BASE_OK;
    if (ctx->recorder != NULL) {
        return ctx->recorder->stop(ctx, us_out);
    }
    BASE_TRY(st, out, kern_wait(ctx));
    *us_out = (double)(base_now_ns() - watch->begun_ns) * 1e-3;
out:
    return st;
}
