#include "worker/model/block.h"

base_status block_gemm(kern_ctx *ctx, const float *x, int32_t n_rows, int32_t k,
                       const model_tensor *w, int32_t n, bool accumulate, float *y)
{
    const kern_gemm_args args = {
        .x = x,
        .w = w->data,
        .y = y,
        .m = n_rows,
        .n = n,
        .k = k,
        .x_stride = k,
        .y_stride = n,
        .dtype = w->dtype,
        .accumulate = accumulate,
    };
    return kern_gemm(ctx, &args);
}

base_status block_norm(kern_ctx *ctx, const model_config *config, const float *x, int32_t n_rows,
                       int32_t cols, const model_tensor *weight, float *y)
{
    const kern_rmsnorm_args args = {
        .x = x,
        .weight = weight->data,
        .y = y,
        .rows = n_rows,
        .cols = cols,
        .eps = config->rms_eps,
        .dtype = weight->dtype,
    };
    return kern_rmsnorm(ctx, &args);
}

base_status block_mlp_run(const block_step *b, const block_layer *layer)
{
    const model_config *c = b->config;
    const model_layer *w = layer->weights;
    const scratch *s = b->scratch;
    const int32_t n = b->step->n_tokens;
    const kern_swiglu_args act = {
        .gate = s->gate, .up = s->up, .y = s->gate, .n_tokens = n, .width = c->ffn_width};
    base_status st = BASE_OK;

    BASE_TRY(st, out, block_norm(b->ctx, c, s->x, n, c->width, &w->mlp_norm, s->h));
    BASE_TRY(st, out,
             block_gemm(b->ctx, s->h, n, c->width, &w->gate, c->ffn_width, false, s->gate));
    BASE_TRY(st, out, block_gemm(b->ctx, s->h, n, c->width, &w->up, c->ffn_width, false, s->up));
    BASE_TRY(st, out, kern_swiglu(b->ctx, &act));
    BASE_TRY(st, out, block_gemm(b->ctx, s->gate, n, c->ffn_width, &w->down, c->width, true, s->x));
out:
    return st;
}
