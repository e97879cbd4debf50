#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_state.h"
#include "kernels/cpu/cpu_vec.h"

CPU_CLONES static void bias_row(const kern_bias_args *a, float *x)
{
    int32_t c = 0;
    for (; c + CPU_LANES <= a->cols; c += CPU_LANES) {
        cpu_f8_store(x + c, cpu_f8_load(x + c) + cpu_f8_elems(a->bias, c, a->dtype));
    }
    for (; c < a->cols; c++) {
        x[c] += cpu_elem(a->bias, c, a->dtype);
    }
}

typedef struct bias_job {
    const kern_bias_args *a;
    int32_t n_tasks;
} bias_job;

static void bias_share(void *arg, int32_t task, int32_t thread)
{
    const bias_job *job = arg;
    const kern_bias_args *a = job->a;
    const int64_t end = cpu_share_begin(a->rows, job->n_tasks, task + 1);
    (void)thread;
    for (int64_t r = cpu_share_begin(a->rows, job->n_tasks, task); r < end; r++) {
        bias_row(a, a->x + r * a->cols);
    }
}

base_status kern_cpu_bias(kern_ctx *ctx, const kern_bias_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    bias_job job = {a, cpu_share_count(state, a->rows, a->cols / 8 + 1)};
    cpu_pool_run(state->pool, job.n_tasks, bias_share, &job);
    return BASE_OK;
}
