#include "kernels/cpu/cpu_rotate.h"
#include "kernels/cpu/cpu_state.h"

typedef struct basis_job {
    const kern_basis_args *a;
    int32_t n_tasks;
} basis_job;

static void basis_share(void *arg, int32_t task, int32_t thread)
{
    const basis_job *job = arg;
    const kern_basis_args *a = job->a;
    const int32_t group = a->n_heads / a->n_kv_heads;
    const int64_t end = cpu_share_begin(a->n_tokens, job->n_tasks, task + 1);
    (void)thread;

    for (int64_t t = cpu_share_begin(a->n_tokens, job->n_tasks, task); t < end; t++) {
        for (int32_t h = 0; h < a->n_heads; h++) {
            const kern_head_format *f = &a->formats[h / group];
            const kern_side *side = a->v_side ? &f->v : &f->k;
            if (side->signs != NULL || side->order != NULL) {
                cpu_rotate(side, cpu_query_signs(side), a->inverse,
                           a->x + (t * a->n_heads + h) * a->head_dim);
            }
        }
    }
}

base_status kern_cpu_basis(kern_ctx *ctx, const kern_basis_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    basis_job job = {a, cpu_share_count(state, a->n_tokens, (int64_t)a->n_heads * 150)};

    cpu_pool_run(state->pool, job.n_tasks, basis_share, &job);
    return BASE_OK;
}
