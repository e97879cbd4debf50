#include "kernels/device.h"

#include <string.h>

const char *kern_device_name(kern_device device)
{
    return device == KERN_DEVICE_CUDA ? "cuda" : "cpu";
}

static base_status check_cuda(void)
{
    if (!kern_gpu_in_build()) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "--device cuda: this build computes on the CPU; configure it with the "
                         "preset cuda");
    }
    if (kern_gpu_count() == 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "--device cuda: no GPU is visible here");
    }
    return BASE_OK;
}

static bool gpu_is_fit(void)
{
    kern_gpu gpu;
    return kern_gpu_count() > 0 && kern_gpu_describe(0, &gpu) == BASE_OK &&
           gpu.capability == KERN_CUDA_CAPABILITY;
}

base_status kern_device_choose(const char *text, kern_device *device_out)
{
    base_status st = BASE_OK;
    if (text == NULL || text[0] == '\0') {
        *device_out = gpu_is_fit() ? KERN_DEVICE_CUDA : KERN_DEVICE_CPU;
    } else if (strcmp(text, "cpu") == 0) {
        *device_out = KERN_DEVICE_CPU;
    } else if (strcmp(text, "cuda") == 0) {
        BASE_TRY(st, out, check_cuda());
        *device_out = KERN_DEVICE_CUDA;
    } else {
        st = BASE_FAIL(BASE_BAD_INPUT, "--device is '%s', allowed cpu and cuda", text);
    }
out:
    return st;
}

base_status kern_ctx_create(kern_device device, int32_t n_threads, const base_alloc *mem,
                            kern_ctx **ctx_out)
{
    return device == KERN_DEVICE_CUDA ? kern_ctx_create_cuda(0, mem, ctx_out)
                                      : kern_ctx_create_cpu(n_threads, mem, ctx_out);
}
