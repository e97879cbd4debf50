#include "worker/model/block.h"

base_status block_sum(const block_step *b)
{
    const scratch *s = b->scratch;
    const int64_t n = (int64_t)model_rows_count(&b->rows) * b->config->width;
    return model_is_split(b->split) ? comm_sum(b->ranks, s->x, n, s->h, b->timeout_ms) : BASE_OK;
}

/* Of ranks that share the weights the first brings the residual into the sum, in which it counts once. */
base_status block_add(const block_step *b, const float *y, int32_t k, const model_tensor *w)
{
    const kern_gemm_args args = {
        .x = y,
        .w = w->data,
        .y = b->scratch->x,
        .m = model_rows_count(&b->rows),
        .n = b->config->width,
        .k = k,
        .x_stride = k,
        .y_stride = b->config->width,
        .dtype = w->dtype,
        .accumulate = b->split->rank == 0,
    };
    const base_status st = kern_gemm(b->ctx, &args);
    return st == BASE_OK ? block_sum(b) : st;
}

base_status block_mlp_run(const block_step *b, const block_layer *layer)
{
    const model_config *c = b->config;
    const model_layer *w = layer->weights;
    const scratch *s = b->scratch;
    const int32_t f = model_span_count(b->split->ffn);
    const kern_gated_args gated = {
        .x = s->x,
        .norm = w->mlp_norm.data,
        .h = s->h,
        .gate = w->gate.data,
        .up = w->up.data,
        .room = s->up,
        .y = s->gate,
        .m = model_rows_count(&b->rows),
        .f = f,
        .k = c->width,
        .eps = c->rms_eps,
        .norm_dtype = w->mlp_norm.dtype,
        .gate_dtype = w->gate.dtype,
        .up_dtype = w->up.dtype,
    };
    const base_status st = kern_gated(b->ctx, &gated);
    return st == BASE_OK ? block_add(b, s->gate, f, &w->down) : st;
}
