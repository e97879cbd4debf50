#include "kernels/backend.h"
#include "kernels/compose.h"

base_status kern_cpu_project(kern_ctx *ctx, const kern_project_args *args)
{
    return kern_compose_project(ctx, args);
}
