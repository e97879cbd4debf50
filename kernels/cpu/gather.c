#include "kernels/backend.h"

#include <string.h>

base_status kern_cpu_gather(kern_ctx *ctx, const kern_gather_args *a)
{
    const size_t row_bytes = (size_t)a->width * sizeof *a->y;
    (void)ctx; /* a copy: memory bound and short */
    for (int64_t i = 0; i < a->n_rows; i++) {
        memcpy(a->y + i * a->width, a->x + (int64_t)a->rows[i] * a->width, row_bytes);
    }
    return BASE_OK;
}
