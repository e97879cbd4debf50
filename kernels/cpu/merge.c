#include "base/half.h"
#include "kernels/compose.h"
#include "kernels/cpu/cpu_state.h"

#include <math.h>

#define CANONICAL_NAN 0x7fc00000u

static float canonical(float x)
{
    return isnan(x) ? base_bits_f32(CANONICAL_NAN) : x;
}

static void merge_row(const kern_merge_args *a, int64_t row)
{
    const int64_t lse_at = (int64_t)a->rows * a->head_dim + row;
    float *o = a->o + row * a->head_dim;
    float top = -INFINITY;
    float sum = 0.0f;

    for (int64_t r = 0; r < a->n_ranks; r++) {
        const float lse = a->partials[r * a->rank_stride + lse_at];
        top = lse > top ? lse : top;
    }
    /* Rank 0 is read before o, which may be its place, is written. */
    for (int64_t r = 0; r < a->n_ranks; r++) {
        const float lse = a->partials[r * a->rank_stride + lse_at];
        const float *part = a->partials + r * a->rank_stride + row * a->head_dim;
        const float w = lse == -INFINITY ? 0.0f : expf(lse - top);
        sum += w;
        for (int32_t d = 0; d < a->head_dim; d++) {
            const float add = lse == -INFINITY ? 0.0f : w * part[d];
            o[d] = r == 0 ? add : o[d] + add;
        }
    }
    const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (int32_t d = 0; d < a->head_dim; d++) {
        o[d] = canonical(o[d] * scale);
    }
    if (a->lse != NULL) {
        a->lse[row] = sum == 0.0f ? -INFINITY : canonical(top + logf(sum));
    }
}

typedef struct merge_job {
    const kern_merge_args *a;
    int32_t n_tasks;
} merge_job;

static void merge_share(void *arg, int32_t task, int32_t thread)
{
    const merge_job *job = arg;
    const int64_t end = cpu_share_begin(job->a->rows, job->n_tasks, task + 1);
    (void)thread;
    for (int64_t r = cpu_share_begin(job->a->rows, job->n_tasks, task); r < end; r++) {
        merge_row(job->a, r);
    }
}

base_status kern_cpu_merge(kern_ctx *ctx, const kern_merge_args *a)
{
    cpu_state *state = cpu_state_of(ctx);
    const int64_t cost_ns = (int64_t)a->n_ranks * (a->head_dim / 4 + 20);
    merge_job job = {a, cpu_share_count(state, a->rows, cost_ns)};
    cpu_pool_run(state->pool, job.n_tasks, merge_share, &job);
    if (a->formats == NULL) {
        return BASE_OK;
    }
    const kern_basis_args basis = kern_outputs_basis(a->o, a->formats, a->rows / a->n_heads,
                                                     a->n_heads, a->n_kv_heads, a->head_dim);
    return kern_cpu_basis(ctx, &basis);
}
