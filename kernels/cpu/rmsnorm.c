#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_state.h"
#include "kernels/cpu/cpu_vec.h"

#include <math.h>

CPU_CLONES static void norm_row(const kern_rmsnorm_args *a, const float *x, float *y)
{
    cpu_f8 squares = {0};
    int32_t c = 0;
    for (; c + CPU_LANES <= a->cols; c += CPU_LANES) {
        const cpu_f8 v = cpu_f8_load(x + c);
        squares += v * v;
    }
    float sum = cpu_f8_sum(squares);
    for (; c < a->cols; c++) {
        sum += x[c] * x[c];
    }
    const float scale = 1.0f / sqrtf(sum / (float)a->cols + a->eps);

    c = 0;
    for (; c + CPU_LANES <= a->cols; c += CPU_LANES) {
        cpu_f8_store(y + c, cpu_f8_load(x + c) * scale * cpu_f8_elems(a->weight, c, a->dtype));
    }
    for (; c < a->cols; c++) {
        y[c] = x[c] * scale * cpu_elem(a->weight, c, a->dtype);
    }
}

typedef struct norm_job {
    const kern_rmsnorm_args *a;
    int32_t n_tasks;
} norm_job;

static void norm_share(void *arg, int32_t task, int32_t thread)
{
    const norm_job *job = arg;
    const kern_rmsnorm_args *a = job->a;
    const int64_t end = cpu_share_begin(a->rows, job->n_tasks, task + 1);
    (void)thread;
    for (int64_t r = cpu_share_begin(a->rows, job->n_tasks, task); r < end; r++) {
        norm_row(a, a->x + r * a->cols, a->y + r * a->cols);
    }
}

base_status kern_cpu_rmsnorm(kern_ctx *ctx, const kern_rmsnorm_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    norm_job job = {a, cpu_share_count(state, a->rows, a->cols / 4 + 1)};
    cpu_pool_run(state->pool, job.n_tasks, norm_share, &job);
    return BASE_OK;
}
