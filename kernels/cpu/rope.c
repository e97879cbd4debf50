#include "kernels/cpu/cpu_state.h"
#include "kernels/cpu/cpu_turn.h"

typedef struct rope_job {
    const kern_rope_args *a;
    int32_t n_tasks;
} rope_job;

static void rope_token(const kern_rope_args *a, int64_t t)
{
    for (int64_t h = 0; h < a->n_heads; h++) {
        cpu_turn_row(a->turns + t * a->head_dim, a->head_dim,
                     a->x + t * a->x_stride + h * a->head_dim);
    }
}

static void rope_share(void *arg, int32_t task, int32_t thread)
{
    const rope_job *job = arg;
    const int64_t end = cpu_share_begin(job->a->n_tokens, job->n_tasks, task + 1);
    (void)thread;
    for (int64_t t = cpu_share_begin(job->a->n_tokens, job->n_tasks, task); t < end; t++) {
        rope_token(job->a, t);
    }
}

base_status kern_cpu_rope(kern_ctx *ctx, const kern_rope_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    rope_job job = {a, cpu_share_count(state, a->n_tokens, a->head_dim * (1 + a->n_heads))};
    cpu_pool_run(state->pool, job.n_tasks, rope_share, &job);
    return BASE_OK;
}
