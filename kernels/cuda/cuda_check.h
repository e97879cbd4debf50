/* kernels/cuda/cuda_check.h - turns CUDA results into base_status, once. */
#ifndef KERNELS_CUDA_CUDA_CHECK_H
#define KERNELS_CUDA_CUDA_CHECK_H

#include "base/status.h"

#include <cuda_runtime_api.h>

/* Clears CUDA's per-thread error, so that it is reported once, here. */
static inline base_status cuda_to_status(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) {
        return BASE_OK;
    }
    (void)cudaGetLastError();
    return BASE_FAIL(error == cudaErrorMemoryAllocation ? BASE_NO_MEMORY : BASE_DEVICE_LOST,
                     "%s: %s", what, cudaGetErrorString(error));
}

#define CUDA_LAUNCHED(name) cuda_to_status(cudaGetLastError(), "launch of " name)

#endif /* KERNELS_CUDA_CUDA_CHECK_H */
