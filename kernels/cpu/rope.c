#include "kernels/cpu/cpu_state.h"

#include <math.h>

typedef struct rope_job {
    const kern_rope_args *a;
    int32_t n_tasks;
} rope_job;

static void rope_token(const kern_rope_args *a, int64_t t)
{
    const int32_t half = a->head_dim / 2;
    float cosine[KERN_MAX_HEAD_DIM / 2];
    float sine[KERN_MAX_HEAD_DIM / 2];

    for (int32_t i = 0; i < half; i++) { /* once for all heads */
        double s;
        double c;
        sincos((double)a->positions[t] * (double)a->inv_freq[i], &s, &c);
        cosine[i] = (float)c;
        sine[i] = (float)s;
    }
    for (int64_t h = 0; h < a->n_heads; h++) {
        float *x = a->x + t * a->x_stride + h * a->head_dim;
        float *y = x + half;
        for (int32_t i = 0; i < half; i++) {
            const float x0 = x[i];
            const float y0 = y[i];
            x[i] = x0 * cosine[i] - y0 * sine[i];
            y[i] = y0 * cosine[i] + x0 * sine[i];
        }
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
    rope_job job = {a, cpu_share_count(state, a->n_tokens, a->head_dim * (20 + a->n_heads))};
    cpu_pool_run(state->pool, job.n_tasks, rope_share, &job);
    return BASE_OK;
}
