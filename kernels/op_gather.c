#include "kernels/op_gather.h"

#include "kernels/backend.h"

base_status kern_gather(struct kern_ctx *ctx, const kern_gather_args *args)
{
    if (args->n_rows < 0 || args->n_x_rows < 1 || args->width < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "gather of %d rows from [%d, %d]", args->n_rows,
                         args->n_x_rows, args->width);
    }
    for (int32_t i = 0; i < args->n_rows; i++) {
        if (args->rows[i] < 0 || args->rows[i] >= args->n_x_rows) {
            return BASE_FAIL(BASE_BAD_INPUT, "gather: rows[%d] is %d, allowed 0..%d", i,
                             args->rows[i], args->n_x_rows - 1);
        }
    }
    return ctx->backend->gather(ctx, args);
}
