/* In a build without CUDA. */
#include "tests/soak/stall.h"

base_status stall(kern_ctx *ctx, int rank)
{
    (void)ctx, (void)rank;
    return BASE_FAIL(BASE_BAD_INPUT, "this build computes on the CPU");
}
