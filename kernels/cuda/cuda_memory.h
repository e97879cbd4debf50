/* kernels/cuda/cuda_memory.h - memory.h on a GPU: which device address stands for a pointer that an op is given.
 *
 * Ranges of addresses, sorted: device memory stands for itself; a mirror, and what is bound, for its twin on the
 * device.  Unified addressing keeps host and device ranges apart.
 * Twins are filled from pageable memory, which CUDA has read when the call returns: the host may write again at once.
 * Threads.  One, whose current device is the stream's. */
#ifndef KERNELS_CUDA_CUDA_MEMORY_H
#define KERNELS_CUDA_CUDA_MEMORY_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_fetch.h"
#include "kernels/cuda/cuda_pages.h"
#include "kernels/cuda/cuda_replay.h"

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cuda_range_kind {
    CUDA_RANGE_DEVICE,
    CUDA_RANGE_MIRROR,
    CUDA_RANGE_BOUND,
    CUDA_RANGE_LENT, /* device memory that somebody else frees */
} cuda_range_kind;

typedef struct cuda_range {
    uintptr_t begin; /* as the layers above know it */
    size_t n_bytes;
    char *device;
    cuda_range_kind kind;
    int32_t n_uses;            /* CUDA_RANGE_BOUND */
    int32_t n_layers;          /* head formats; else 0 */
    kern_cuda_formats **pages; /* [n_layers], head formats as cuda_pages.h takes them */
} cuda_range;

typedef struct cuda_memory {
    cudaStream_t stream;
    cuda_replay *replay; /* forgets what it recorded when a range ends */
    base_alloc mem;
    cuda_range *ranges;
    int32_t n_ranges;
    int32_t max_ranges;
    int64_t n_bytes; /* taken on the device */
    cuda_fetches fetches;
} cuda_memory;

/* replay is borrowed; its stream is the memory's. */
void cuda_memory_init(cuda_memory *m, cuda_replay *replay, const base_alloc *mem);
/* Gives back what is left: the caller's mirrors and memory must be gone by then. */
void cuda_memory_reset(cuda_memory *m);

/* far->ctx is m. */
void cuda_memory_far(cuda_memory *m, kern_far *far_out);

/* The range that p lies in; NULL if there is none. */
const cuda_range *cuda_memory_find(const cuda_memory *m, const void *p);

/* As cuda_share.h says.  Errors: NO_MEMORY. */
base_status cuda_memory_lend(cuda_memory *m, void *device, size_t n_bytes);
void cuda_memory_take_back(cuda_memory *m, const void *device);

#endif /* KERNELS_CUDA_CUDA_MEMORY_H */
