/* kernels/cuda/cuda_share.h - what a transport between GPUs needs of the context whose ops its calls are. */
#ifndef KERNELS_CUDA_CUDA_SHARE_H
#define KERNELS_CUDA_CUDA_SHARE_H

#include "base/status.h"
#include "kernels/cuda/cuda_pages.h"
#include "kernels/kern.h"

#include <cuda_runtime_api.h>
#include <stddef.h>

/* The stream of ctx, a context on a GPU and no timed one.  Errors: BAD_INPUT. */
BASE_MUST_CHECK base_status cuda_share_stream(const kern_ctx *ctx, cudaStream_t *stream_out);

/* Where n_bytes at p, memory of ctx, lie on the device.  `what` names them in the error.  Errors: BAD_INPUT. */
BASE_MUST_CHECK base_status cuda_share_find(const kern_ctx *ctx, const char *what, const void *p,
                                            size_t n_bytes, void **device_out);

/* Ops of ctx may be given pointers into device memory that the transport has made, until it takes it back: then ops that
 * were called have ended, and nothing recorded points there.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status cuda_share_lend(kern_ctx *ctx, void *device, size_t n_bytes);
void cuda_share_take_back(kern_ctx *ctx, void *device);

/* Whether decode attention does all of a step: sequences of few queries, their tokens in order. */
bool cuda_share_decodes(const kern_attn_args *args);

/* What kern_cuda_attn takes for args of such a step, before it is launched next.  Errors: BAD_INPUT. */
BASE_MUST_CHECK base_status cuda_share_attn(kern_ctx *ctx, const kern_attn_args *args,
                                            kern_attn_args *device_out,
                                            kern_cuda_attn_work *work_out);

#endif /* KERNELS_CUDA_CUDA_SHARE_H */
