/* NCCL in a build without CUDA: there is none. */
#include "kernels/comm/comm_nccl.h"

int32_t comm_nccl_version(void)
{
    return 0;
}

base_status comm_nccl_create(const comm_nccl_options *options, const base_alloc *mem,
                             comm **comm_out)
{
    (void)mem, (void)comm_out;
    return BASE_FAIL(BASE_BAD_INPUT, "%s: this build computes on the CPU, without NCCL",
                     options->who);
}
