#include "kernels/cpu/cpu_state.h"

#include <string.h>

base_status kern_cpu_deal(kern_ctx *ctx, const kern_deal_args *a)
{
    const float *lse = a->x + (int64_t)a->n_tokens * a->n_heads * a->head_dim;
    float *y = a->y;
    (void)ctx; /* a copy: memory bound and short */
    for (int32_t r = 0; r < a->n_ranks; r++) {
        const int32_t begin = a->begins[r];
        const size_t n = (size_t)(a->begins[r + 1] - begin);
        for (int64_t t = 0; t < a->n_tokens; t++, y += n * (size_t)a->head_dim) {
            memcpy(y, a->x + (t * a->n_heads + begin) * a->head_dim,
                   n * (size_t)a->head_dim * sizeof *y);
        }
        for (int64_t t = 0; t < a->n_tokens; t++, y += n) {
            memcpy(y, lse + t * a->n_heads + begin, n * sizeof *y);
        }
    }
    return BASE_OK;
}
