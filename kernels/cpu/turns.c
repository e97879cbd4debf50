#include "kernels/cpu/cpu_state.h"

#include <math.h>

typedef struct turns_job {
    const kern_turns_args *a;
    int32_t n_tasks;
} turns_job;

static void turns_share(void *arg, int32_t task, int32_t thread)
{
    const turns_job *job = arg;
    const kern_turns_args *a = job->a;
    const int64_t half = a->head_dim / 2;
    const int64_t end = cpu_share_begin(a->n_tokens, job->n_tasks, task + 1);
    (void)thread;
    for (int64_t t = cpu_share_begin(a->n_tokens, job->n_tasks, task); t < end; t++) {
        for (int64_t i = 0; i < half; i++) {
            double s;
            double c;
            sincos((double)a->positions[t] * (double)a->inv_freq[i], &s, &c);
            a->turns[(t * half + i) * 2] = (float)c;
            a->turns[(t * half + i) * 2 + 1] = (float)s;
        }
    }
}

base_status kern_cpu_turns(kern_ctx *ctx, const kern_turns_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    turns_job job = {a, cpu_share_count(state, a->n_tokens, a->head_dim * 20)};
    cpu_pool_run(state->pool, job.n_tasks, turns_share, &job);
    return BASE_OK;
}
