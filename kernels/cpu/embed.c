#include "kernels/cpu/cpu_clones.h"
#include "kernels/cpu/cpu_state.h"
#include "kernels/cpu/cpu_vec.h"

#include <string.h>

CPU_CLONES base_status kern_cpu_embed(kern_ctx *ctx, const kern_embed_args *a)
{
    (void)ctx; /* a copy: memory bound and short */
    for (int64_t t = 0; t < a->n_tokens; t++) {
        const int32_t id = a->ids[t] >= 0 ? a->ids[t] : a->recent[-1 - a->ids[t]];
        const int64_t row = (int64_t)(id - a->begin) * a->width;
        float *y = a->y + t * a->width;
        if (a->end > 0 && (id < a->begin || id >= a->end)) {
            memset(y, 0, (size_t)a->width * sizeof *y);
            continue;
        }
        int32_t c = 0;
        for (; c + CPU_LANES <= a->width; c += CPU_LANES) {
            cpu_f8_store(y + c, cpu_f8_elems(a->table, row + c, a->dtype));
        }
        for (; c < a->width; c++) {
            y[c] = cpu_elem(a->table, row + c, a->dtype);
        }
    }
    return BASE_OK;
}
