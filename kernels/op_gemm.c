#include "kernels/op_gemm.h"

#include "kernels/backend.h"

base_status kern_gemm(struct kern_ctx *ctx, const kern_gemm_args *args)
{
    if (args->m < 0 || args->n < 1 || args->k < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "gemm shape m %d, n %d, k %d", args->m, args->n, args->k);
    }
    if (args->x_stride < args->k || args->y_stride < args->n) {
        return BASE_FAIL(BASE_BAD_INPUT, "gemm strides %d for k %d, %d for n %d", args->x_stride,
                         args->k, args->y_stride, args->n);
    }
    return args->m == 0 ? BASE_OK : ctx->backend->gemm(ctx, args);
}
