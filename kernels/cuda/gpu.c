#include "kernels/cuda/cuda_check.h"
#include "kernels/device.h"

#include <stdio.h>

bool kern_gpu_in_build(void)
{
    return true;
}

int32_t kern_gpu_count(void)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess) { /* no driver is no GPU */
        (void)cudaGetLastError();
        n = 0;
    }
    return n;
}

bool kern_gpu_reaches(int32_t index, int32_t peer)
{
    int reaches = 0;
    if (cudaDeviceCanAccessPeer(&reaches, index, peer) != cudaSuccess) {
        (void)cudaGetLastError();
        reaches = 0;
    }
    return reaches != 0;
}

base_status kern_gpu_describe(int32_t index, kern_gpu *gpu_out)
{
    base_status st = BASE_OK;
    struct cudaDeviceProp properties;
    size_t free_bytes = 0, total_bytes = 0;
    int driver = 0, before = 0;

    if (index < 0 || index >= kern_gpu_count()) {
        return BASE_FAIL(BASE_BAD_INPUT, "GPU %d of %d", index, kern_gpu_count());
    }
    BASE_TRY(st, out, cuda_to_status(cudaGetDeviceProperties(&properties, index), "GPU"));
    BASE_TRY(st, out, cuda_to_status(cudaDriverGetVersion(&driver), "driver"));
    BASE_TRY(st, out, cuda_to_status(cudaGetDevice(&before), "GPU"));
    BASE_TRY(st, out, cuda_to_status(cudaSetDevice(index), "GPU"));
    st = cuda_to_status(cudaMemGetInfo(&free_bytes, &total_bytes), "memory of the GPU");
    (void)cudaSetDevice(before);
    if (st == BASE_OK) {
        *gpu_out = (kern_gpu){.capability = 10 * properties.major + properties.minor,
                              .driver = driver,
                              .total_bytes = (int64_t)total_bytes,
                              .free_bytes = (int64_t)free_bytes,
                              .cache_bytes = properties.l2CacheSize};
        (void)snprintf(gpu_out->name, sizeof gpu_out->name, "%.127s", properties.name);
        for (size_t i = 0; i < sizeof properties.uuid.bytes; i++) {
            (void)snprintf(gpu_out->uuid + 2 * i, 3, "%02x",
                           (unsigned char)properties.uuid.bytes[i]);
        }
    }
out:
    return st;
}
