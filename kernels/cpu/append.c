#include "base/half.h"
#include "kernels/cpu/cpu_rotate.h"
#include "kernels/cpu/cpu_state.h"
#include "kernels/cpu/cpu_turn.h"

#include <string.h>

static void copy_carry(const kern_append_args *a, const kern_open *open)
{
    const int64_t side = (int64_t)KERN_BLOCK_TOKENS * a->head_dim;
    const size_t n_bytes = (size_t)open->n_carry * (size_t)a->head_dim * sizeof *open->rows;
    for (int64_t i = 0; i < (int64_t)a->n_kv_heads * 2; i++) {
        memcpy(open->rows + i * side, open->carry + i * side, n_bytes);
    }
}

/* turns: of the row's token, or NULL. */
static void append_row(const kern_side *side, const float *x, const float *turns, int32_t head_dim,
                       uint16_t *row)
{
    float y[KERN_MAX_HEAD_DIM];
    memcpy(y, x, (size_t)head_dim * sizeof *y);
    if (turns != NULL) {
        cpu_turn_row(turns, head_dim, y);
    }
    if (side->signs != NULL || side->order != NULL) {
        cpu_rotate(side, side->signs, false, y);
    }
    for (int32_t d = 0; d < head_dim; d++) {
        row[d] = base_bf16_from_f32(y[d]);
    }
}

typedef struct append_job {
    const kern_append_args *a;
    int32_t n_tasks;
} append_job;

static void append_share(void *arg, int32_t task, int32_t thread)
{
    const append_job *job = arg;
    const kern_append_args *a = job->a;
    const int64_t end = cpu_share_begin(a->n_tokens, job->n_tasks, task + 1);
    (void)thread;

    for (int64_t t = cpu_share_begin(a->n_tokens, job->n_tasks, task); t < end; t++) {
        if (a->dest[t] < 0) {
            continue;
        }
        const float *turns = a->turns == NULL ? NULL : a->turns + t * a->head_dim;
        uint16_t *rows = a->opens[a->dest[t]].rows;
        for (int64_t h = 0; h < a->n_kv_heads; h++) {
            const int64_t x0 = (t * a->n_kv_heads + h) * a->head_dim;
            const int64_t k0 =
                (h * 2 * KERN_BLOCK_TOKENS + a->positions[t] % KERN_BLOCK_TOKENS) * a->head_dim;
            const int64_t v0 = k0 + (int64_t)KERN_BLOCK_TOKENS * a->head_dim;
            append_row(&a->formats[h].k, a->k + x0, turns, a->head_dim, rows + k0);
            append_row(&a->formats[h].v, a->v + x0, NULL, a->head_dim, rows + v0);
        }
    }
}

static base_status queries(kern_ctx *ctx, const kern_append_args *a)
{
    const kern_rope_args rope = {
        .x = a->q,
        .turns = a->turns,
        .n_tokens = a->n_tokens,
        .n_heads = a->n_heads,
        .head_dim = a->head_dim,
        .x_stride = a->n_heads * a->head_dim,
    };
    const kern_basis_args basis = {
        .x = a->q,
        .formats = a->formats,
        .n_tokens = a->n_tokens,
        .n_heads = a->n_heads,
        .n_kv_heads = a->n_kv_heads,
        .head_dim = a->head_dim,
    };
    const base_status st = a->turns == NULL ? BASE_OK : kern_cpu_rope(ctx, &rope);
    return st == BASE_OK ? kern_cpu_basis(ctx, &basis) : st;
}

base_status kern_cpu_append(kern_ctx *ctx, const kern_append_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    append_job job = {a, cpu_share_count(state, a->n_tokens, (int64_t)a->n_kv_heads * 400)};

    for (int32_t i = 0; i < a->n_opens; i++) {
        if (a->opens[i].n_carry > 0 && a->opens[i].carry != NULL) {
            copy_carry(a, &a->opens[i]);
        }
    }
    if (a->k != NULL) {
        cpu_pool_run(state->pool, job.n_tasks, append_share, &job);
    }
    return a->q == NULL ? BASE_OK : queries(ctx, a);
}
