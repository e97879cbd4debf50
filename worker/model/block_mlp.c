#include "worker/model/block.h"

base_status block_add(kern_ctx *ctx, const float *x, int32_t n_rows, int32_t k,
                      const model_tensor *w, int32_t n, float *y)
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
        .accumulate = true,
    };
    return kern_gemm(ctx, &args);
}

base_status block_mlp_run(const block_step *b, const block_layer *layer)
{
    const model_config *c = b->config;
    const model_layer *w = layer->weights;
    const scratch *s = b->scratch;
    const int32_t n = b->step->n_tokens;
    const kern_gated_args gated = {
        .x = s->x,
        .norm = w->mlp_norm.data,
        .h = s->h,
        .gate = w->gate.data,
        .up = w->up.data,
        .room = s->up,
        .y = s->gate,
        .m = n,
        .f = c->ffn_width,
        .k = c->width,
        .eps = c->rms_eps,
        .norm_dtype = w->mlp_norm.dtype,
        .gate_dtype = w->gate.dtype,
        .up_dtype = w->up.dtype,
    };
    const base_status st = kern_gated(b->ctx, &gated);
    return st == BASE_OK ? block_add(b->ctx, s->gate, n, c->ffn_width, &w->down, c->width, s->x)
                         : st;
}
