/* One-shot exchanges in a build without CUDA: there are none. */
#include "kernels/comm/comm_lsa.h"

base_status comm_lsa_create(const comm_lsa_options *options, const base_alloc *mem, comm **comm_out)
{
    (void)options, (void)mem, (void)comm_out;
    return BASE_FAIL(BASE_BAD_INPUT, "lsa: this build computes on the CPU");
}
