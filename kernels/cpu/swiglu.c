/* g / (1 + exp(-g)) is written with e = exp(-|g|), which cannot overflow. */
#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_state.h"
#include "kernels/cpu/cpu_vec.h"

#include <math.h>

static float exactly(float g, float u)
{
    return (float)((double)g / (1.0 + exp(-(double)g)) * (double)u);
}

CPU_CLONES static void swiglu_range(const kern_swiglu_args *a, int64_t i, int64_t end)
{
    for (; i + CPU_LANES <= end; i += CPU_LANES) {
        const cpu_f8 g = cpu_f8_load(a->gate + i);
        const cpu_f8 u = cpu_f8_load(a->up + i);
        const cpu_u8 negative = (cpu_u8)(g < 0.0f);
        const cpu_f8 e = cpu_f8_exp(cpu_f8_select(negative, g, -g));
        const cpu_f8 top = cpu_f8_select(negative, e, cpu_f8_all(1.0f));
        cpu_f8 y = g * (top / (e + 1.0f)) * u;
        const cpu_u8 tiny = (cpu_u8)(g < -80.0f); /* e leaves the normal floats */
        for (int lane = 0; lane < CPU_LANES; lane++) {
            if (tiny[lane] != 0) {
                y[lane] = exactly(g[lane], u[lane]);
            }
        }
        cpu_f8_store(a->y + i, y);
    }
    for (; i < end; i++) {
        a->y[i] = exactly(a->gate[i], a->up[i]);
    }
}

typedef struct swiglu_job {
    const kern_swiglu_args *a;
    int32_t n_tasks;
} swiglu_job;

/* Shares are whole groups of eight, so that a value does not depend on the number of threads. */
static void swiglu_share(void *arg, int32_t task, int32_t thread)
{
    const swiglu_job *job = arg;
    const int64_t n = (int64_t)job->a->n_tokens * job->a->width;
    const int64_t groups = (n + CPU_LANES - 1) / CPU_LANES;
    const int64_t begin = cpu_share_begin(groups, job->n_tasks, task) * CPU_LANES;
    const int64_t end = cpu_share_begin(groups, job->n_tasks, task + 1) * CPU_LANES;
    (void)thread;
    swiglu_range(job->a, begin, end < n ? end : n);
}

base_status kern_cpu_swiglu(kern_ctx *ctx, const kern_swiglu_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    const int64_t groups = ((int64_t)a->n_tokens * a->width + CPU_LANES - 1) / CPU_LANES;
    swiglu_job job = {a, cpu_share_count(state, groups, 10)};
    cpu_pool_run(state->pool, job.n_tasks, swiglu_share, &job);
    return BASE_OK;
}
