/* kernels/device.h - what a context may run on: the CPU, or a GPU where the build has CUDA. */
#ifndef KERNELS_DEVICE_H
#define KERNELS_DEVICE_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/kern.h"

#include <stdbool.h>
#include <stdint.h>

#define KERN_CUDA_CAPABILITY 90 /* of the GPUs that the CUDA kernels are compiled for: Hopper */

typedef enum kern_device {
    KERN_DEVICE_CPU,
    KERN_DEVICE_CUDA,
} kern_device;

const char *kern_device_name(kern_device device); /* "cpu", "cuda" */

/* For one context: "cpu" or "cuda"; empty or NULL: cuda where there is a GPU for it, else cpu.
 * Errors: BAD_INPUT (another name; cuda in a build without it, or without a GPU). */
BASE_MUST_CHECK base_status kern_device_choose(const char *text, kern_device *device_out);

/* n_threads is the CPU's matter, as in kern_ctx_create_cpu; on GPUs the first one is taken.
 * Errors: BAD_INPUT, NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_ctx_create(kern_device device, int32_t n_threads,
                                            const base_alloc *mem, kern_ctx **ctx_out);

/* ---- GPUs: cuda/gpu.c, or no_cuda.c in builds without ---- */

typedef struct kern_gpu {
    char name[128];
    char uuid[40];      /* hex; of all GPUs another */
    int32_t capability; /* 90 is 9.0 */
    int32_t driver;     /* the CUDA version it supports: 13000 is 13.0 */
    int64_t total_bytes;
    int64_t free_bytes;
    int64_t cache_bytes; /* L2 */
} kern_gpu;

bool kern_gpu_in_build(void);
int32_t kern_gpu_count(void);
/* Errors: BAD_INPUT (no such GPU), DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_gpu_describe(int32_t index, kern_gpu *gpu_out);
/* Whether GPU `index` can read and write the memory of `peer`.  No such GPU: false. */
bool kern_gpu_reaches(int32_t index, int32_t peer);

/* GB/s that GPU `index` reads its memory with, and copies it with, read and written bytes together: the best of some
 * kernels, and of the driver's copy, by the medians of their runs over 2 GiB.  Takes 4 GiB meanwhile.
 * Errors: BAD_INPUT (no such GPU), NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_gpu_bandwidth(int32_t index, double *read_gb_out,
                                               double *copy_gb_out);

/* A context on GPU `index`, with a stream of its own.  Takes about 0.1 GB of it, besides what CUDA takes.
 * Errors: BAD_INPUT (no such GPU, one that the kernels are not for), NO_MEMORY, DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_ctx_create_cuda(int32_t index, const base_alloc *mem,
                                                 kern_ctx **ctx_out);

#endif /* KERNELS_DEVICE_H */
