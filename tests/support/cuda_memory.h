/* tests/support/cuda_memory.h - device memory for tests: a failure fails the test. */
#ifndef TESTS_SUPPORT_CUDA_MEMORY_H
#define TESTS_SUPPORT_CUDA_MEMORY_H

#include "tests/support/test.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdio.h>

/* A copy of n_bytes (0 is fine); ended with cuda_memory_free. */
static inline void *cuda_memory(const void *host, int64_t n_bytes)
{
    void *p = NULL;
    assert_int_equal(cudaMalloc(&p, (size_t)n_bytes + 16), cudaSuccess);
    assert_int_equal(cudaMemcpy(p, host, (size_t)n_bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return p;
}

/* Waits for the kernels. */
static inline void cuda_memory_read(void *host, const void *device, int64_t n_bytes)
{
    const cudaError_t error = cudaMemcpy(host, device, (size_t)n_bytes, cudaMemcpyDeviceToHost);
    if (error != cudaSuccess) {
        fail_msg("reading device memory: %s", cudaGetErrorString(error));
    }
}

static inline void cuda_memory_free(const void *p)
{
    void *device = NULL; /* without a cast that drops const */
    memcpy(&device, &p, sizeof p);
    assert_int_equal(cudaFree(device), cudaSuccess);
}

/* Says so and returns true where there is no GPU. */
static inline bool cuda_memory_is_missing(void)
{
    int n_devices = 0;
    if (cudaGetDeviceCount(&n_devices) == cudaSuccess && n_devices > 0) {
        return false;
    }
    printf("SKIP: no CUDA device\n");
    return true;
}

#endif /* TESTS_SUPPORT_CUDA_MEMORY_H */
