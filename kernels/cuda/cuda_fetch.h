/* kernels/cuda/cuda_fetch.h - copies to the host that run beside it: the two parts of a fetch (memory.h). */
#ifndef KERNELS_CUDA_CUDA_FETCH_H
#define KERNELS_CUDA_CUDA_FETCH_H

#include "base/status.h"
#include "kernels/memory.h"

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cuda_fetch {
    char *staging; /* page-locked: a copy into other memory would wait for the stream */
    size_t n_staging;
    cudaEvent_t done;
    void *to;
    size_t n_bytes;
} cuda_fetch;

typedef struct cuda_fetches { /* zeroed: none */
    cuda_fetch fetches[KERN_MAX_FETCHES];
    uint64_t n_begun; /* fetch n is the one at n % KERN_MAX_FETCHES */
    uint64_t n_ended;
} cuda_fetches;

/* Of device memory, once stream has come so far.  Errors: BAD_INPUT (one too many), NO_MEMORY, DEVICE_LOST. */
base_status cuda_fetch_begin(cuda_fetches *f, cudaStream_t stream, const char *device,
                             size_t n_bytes, void *to);
/* Errors: BAD_INPUT (none was begun), DEVICE_LOST. */
base_status cuda_fetch_end(cuda_fetches *f);
void cuda_fetch_reset(cuda_fetches *f);

#endif /* KERNELS_CUDA_CUDA_FETCH_H */
