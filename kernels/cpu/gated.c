#include "kernels/backend.h"
#include "kernels/compose.h"

base_status kern_cpu_gated(kern_ctx *ctx, const kern_gated_args *args)
{
    return kern_compose_gated(ctx, args);
}
