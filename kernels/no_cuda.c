/* GPUs in a build without CUDA: there are none. */
#include "kernels/device.h"

bool kern_gpu_in_build(void)
{
    return false;
}

int32_t kern_gpu_count(void)
{
    return 0;
}

base_status kern_gpu_describe(int32_t index, kern_gpu *gpu_out)
{
    (void)gpu_out;
    return BASE_FAIL(BASE_BAD_INPUT, "GPU %d: this build computes on the CPU", index);
}

bool kern_gpu_reaches(int32_t index, int32_t peer)
{
    (void)index, (void)peer;
    return false;
}

base_status kern_gpu_bandwidth(int32_t index, double *read_gb_out, double *copy_gb_out)
{
    (void)read_gb_out, (void)copy_gb_out;
    return BASE_FAIL(BASE_BAD_INPUT, "GPU %d: this build computes on the CPU", index);
}

base_status kern_ctx_create_cuda(int32_t index, const base_alloc *mem, kern_ctx **ctx_out)
{
    (void)mem, (void)ctx_out;
    return BASE_FAIL(BASE_BAD_INPUT, "GPU %d: this build computes on the CPU", index);
}
