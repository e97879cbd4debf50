/* kernels/cuda/cuda_launch.h - launches that begin while the kernel before is still running (programmatic dependent
 * launch), so that its end and their start overlap.  All want shared memory to be as large as it can be, so that no SM
 * is emptied to divide its memory anew.
 *
 * A kernel launched so calls cuda_after_previous in every thread before it touches anything that work on the stream
 * writes.  What nobody writes there (weights, tables, formats) it may read before, and so what is only copied there, as a
 * step's descriptors are: kernels overlap kernels alone. */
#ifndef KERNELS_CUDA_CUDA_LAUNCH_H
#define KERNELS_CUDA_CUDA_LAUNCH_H

#include <cuda_runtime.h>

/* The wish for shared memory alone, once and for all launches of a kernel, where one is launched in another way. */
template <typename... Parameters>
static inline cudaError_t cuda_wants_shared(void (*kernel)(Parameters...))
{
    return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                cudaSharedmemCarveoutMaxShared);
}

/* With n_bytes of dynamic shared memory.  Errors are found by CUDA_LAUNCHED. */
template <typename... Parameters, typename... Arguments>
static inline void cuda_launch_shared(void (*kernel)(Parameters...), dim3 grid, int n_threads,
                                      size_t n_bytes, cudaStream_t stream,
                                      const Arguments &...arguments)
{
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    attributes[1].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(n_threads);
    config.dynamicSmemBytes = n_bytes;
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = 2;
    (void)cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

template <typename... Parameters, typename... Arguments>
static inline void cuda_launch(void (*kernel)(Parameters...), dim3 grid, int n_threads,
                               cudaStream_t stream, const Arguments &...arguments)
{
    cuda_launch_shared(kernel, grid, n_threads, 0, stream, arguments...);
}

/* Lets the next kernel's CTAs come as soon as there is room, and waits for all work before this kernel. */
static __device__ __forceinline__ void cuda_after_previous()
{
    asm volatile("griddepcontrol.launch_dependents;\n"
                 "griddepcontrol.wait;" ::
                     : "memory");
}

#endif /* KERNELS_CUDA_CUDA_LAUNCH_H */
