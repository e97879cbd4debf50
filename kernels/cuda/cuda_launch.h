/* kernels/cuda/cuda_launch.h - launches that begin while the kernel before is still running (programmatic dependent
 * launch), so that its end and their start overlap.
 *
 * A kernel launched so calls cuda_after_previous in every thread before it touches anything that work on the stream
 * writes.  What nobody writes there (weights, tables, formats) it may read before. */
#ifndef KERNELS_CUDA_CUDA_LAUNCH_H
#define KERNELS_CUDA_CUDA_LAUNCH_H

#include <cuda_runtime.h>

/* Errors are found by CUDA_LAUNCHED. */
template <typename... Parameters, typename... Arguments>
static inline void cuda_launch(void (*kernel)(Parameters...), dim3 grid, int n_threads,
                               cudaStream_t stream, const Arguments &...arguments)
{
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(n_threads);
    config.stream = stream;
    config.attrs = &overlap;
    config.numAttrs = 1;
    (void)cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

/* Lets the next kernel's CTAs come as soon as there is room, and waits for all work before this kernel. */
static __device__ __forceinline__ void cuda_after_previous()
{
    asm volatile("griddepcontrol.launch_dependents;\n"
                 "griddepcontrol.wait;" ::
                     : "memory");
}

#endif /* KERNELS_CUDA_CUDA_LAUNCH_H */
