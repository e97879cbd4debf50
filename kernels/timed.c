#include "kernels/timed.h"

#include "base/clock.h"
#include "kernels/backend.h"

#include <string.h>

#define F32 ((int64_t)sizeof(float))

typedef struct timed_state {
    kern_ctx *inner;
    kern_op_time times[KERN_N_OPS];
} timed_state;

static int64_t append_bytes(const kern_append_args *a)
{
    return a->k == NULL ? 0 : 2 * (int64_t)a->n_tokens * a->n_kv_heads * a->head_dim * (F32 + 2);
}

static int64_t attn_bytes(const kern_attn_args *a)
{
    return kern_attn_bytes(a) + 2 * (int64_t)a->n_tokens * a->n_heads * a->head_dim * F32;
}

static int64_t basis_bytes(const kern_basis_args *a)
{
    return 2 * (int64_t)a->n_tokens * a->n_heads * a->head_dim * F32;
}

static int64_t bias_bytes(const kern_bias_args *a)
{
    return 2 * (int64_t)a->rows * a->cols * F32;
}

static int64_t deal_bytes(const kern_deal_args *a)
{
    return 2 * (int64_t)a->n_tokens * a->n_heads * (a->head_dim + 1) * F32;
}

static int64_t embed_bytes(const kern_embed_args *a)
{
    return (int64_t)a->n_tokens * a->width * (F32 + (int64_t)base_dtype_bytes(a->dtype));
}

static int64_t gated_bytes(const kern_gated_args *a)
{
    const int64_t w_bytes =
        (int64_t)(base_dtype_bytes(a->gate_dtype) + base_dtype_bytes(a->up_dtype));
    return (int64_t)a->f * a->k * w_bytes + (int64_t)a->m * ((int64_t)a->k + a->f) * F32;
}

static int64_t gemm_bytes(const kern_gemm_args *a)
{
    return (int64_t)a->n * a->k * (int64_t)base_dtype_bytes(a->dtype) + (int64_t)a->m * a->k * F32 +
           (int64_t)a->m * a->n * F32 * (a->accumulate ? 2 : 1);
}

static int64_t merge_bytes(const kern_merge_args *a)
{
    return (int64_t)a->rows * F32 * (a->n_ranks * (a->head_dim + 1) + a->head_dim);
}

static int64_t pack_bytes(const kern_pack_args *a)
{
    int64_t n = 0;
    for (int32_t h = 0; h < a->n_kv_heads; h++) {
        n += a->formats[h].head_page_bytes + 2 * KERN_BLOCK_TOKENS * a->formats[h].head_dim * 2;
    }
    return n * a->n_packs;
}

static int64_t project_bytes(const kern_project_args *a)
{
    int64_t n = (int64_t)a->m * a->k * F32;
    for (int32_t i = 0; i < a->n_parts; i++) {
        const kern_project_part *p = &a->parts[i];
        n +=
            (int64_t)p->n * a->k * (int64_t)base_dtype_bytes(p->dtype) + (int64_t)a->m * p->n * F32;
    }
    return n;
}

static int64_t rmsnorm_bytes(const kern_rmsnorm_args *a)
{
    return 2 * (int64_t)a->rows * a->cols * F32;
}

static int64_t rope_bytes(const kern_rope_args *a)
{
    return 2 * (int64_t)a->n_tokens * a->n_heads * a->head_dim * F32;
}

static int64_t sample_bytes(const kern_sample_args *a)
{
    return (int64_t)a->n_rows * a->n_vocab * F32;
}

static int64_t swiglu_bytes(const kern_swiglu_args *a)
{
    return 3 * (int64_t)a->n_tokens * a->width * F32;
}

static int64_t turns_bytes(const kern_turns_args *a)
{
    return (int64_t)a->n_tokens * a->head_dim * F32;
}

static void timed_note(timed_state *s, kern_op op, int64_t begun, int64_t n_bytes)
{
    kern_op_time *t = &s->times[op];
    t->ns += base_now_ns() - begun;
    t->n_bytes += n_bytes;
    t->n_calls++;
}

#define X(op)                                                                  \
    static base_status timed_##op(kern_ctx *ctx, const kern_##op##_args *args) \
    {                                                                          \
        timed_state *s = ctx->state;                                           \
        const int64_t begun = base_now_ns();                                   \
        base_status st = s->inner->backend->op(s->inner, args);                \
        st = st == BASE_OK ? kern_wait(s->inner) : st;                         \
        timed_note(s, KERN_OP_##op, begun, op##_bytes(args));                  \
        return st;                                                             \
    }
#include "kernels/ops.def"
#undef X

static void timed_destroy(kern_ctx *ctx)
{
    const base_alloc mem = ctx->mem;
    mem.put(mem.ctx, ctx->state);
    mem.put(mem.ctx, ctx);
}

static const kern_backend timed_backend = {
    .name = "timed",
#define X(op) .op = timed_##op,
#include "kernels/ops.def"
#undef X
    .destroy = timed_destroy,
};

const char *kern_op_name(kern_op op)
{
    static const char *const names[] = {
#define X(op) #op,
#include "kernels/ops.def"
#undef X
    };
    return names[op];
}

base_status kern_ctx_create_timed(kern_ctx *inner, const base_alloc *mem, kern_ctx **ctx_out)
{
    kern_ctx *ctx = mem->get(mem->ctx, sizeof *ctx);
    timed_state *s = mem->get(mem->ctx, sizeof *s);
    if (ctx == NULL || s == NULL) {
        mem->put(mem->ctx, ctx);
        mem->put(mem->ctx, s);
        return BASE_FAIL(BASE_NO_MEMORY, "timed kernel context");
    }
    s->inner = inner;
    *ctx = (kern_ctx){.backend = &timed_backend, .state = s, .mem = *mem, .far = inner->far};
    *ctx_out = ctx;
    return BASE_OK;
}

void kern_timed_take(kern_ctx *ctx, kern_op_time times_out[KERN_N_OPS])
{
    timed_state *s = ctx->state;
    memcpy(times_out, s->times, sizeof s->times);
    memset(s->times, 0, sizeof s->times);
}
