/* kernels/cuda/cuda_ops.h - the kernels behind the CUDA backend's table, but for attention, pages and GEMM.
 *
 * The contracts are those of op_*.h, with every pointer in device memory and 16-byte aligned; limits are the
 * front doors' matter.  stream is a cudaStream_t.
 * Ops overlap the end of the kernel before them: weights, bias vectors and formats are read before it has ended, so
 * nothing on the stream may still be writing them.
 * deal, embed, bias, rope, append and basis give the CPU's bits, turns where sines agree to f32.
 * Errors: DEVICE_LOST, NO_MEMORY (a launch failed). */
#ifndef KERNELS_CUDA_CUDA_OPS_H
#define KERNELS_CUDA_CUDA_OPS_H

#include "kernels/op_append.h"
#include "kernels/op_basis.h"
#include "kernels/op_bias.h"
#include "kernels/op_deal.h"
#include "kernels/op_embed.h"
#include "kernels/op_merge.h"
#include "kernels/op_rmsnorm.h"
#include "kernels/op_rope.h"
#include "kernels/op_sample.h"
#include "kernels/op_swiglu.h"
#include "kernels/op_turns.h"

#ifdef __cplusplus
extern "C" {
#endif

BASE_MUST_CHECK base_status kern_cuda_append(void *stream, const kern_append_args *args);
BASE_MUST_CHECK base_status kern_cuda_basis(void *stream, const kern_basis_args *args);
BASE_MUST_CHECK base_status kern_cuda_bias(void *stream, const kern_bias_args *args);
BASE_MUST_CHECK base_status kern_cuda_deal(void *stream, const kern_deal_args *args);
BASE_MUST_CHECK base_status kern_cuda_embed(void *stream, const kern_embed_args *args);
BASE_MUST_CHECK base_status kern_cuda_merge(void *stream, const kern_merge_args *args);
BASE_MUST_CHECK base_status kern_cuda_rmsnorm(void *stream, const kern_rmsnorm_args *args);
BASE_MUST_CHECK base_status kern_cuda_rope(void *stream, const kern_rope_args *args);
BASE_MUST_CHECK base_status kern_cuda_sample(void *stream, const kern_sample_args *args);
BASE_MUST_CHECK base_status kern_cuda_swiglu(void *stream, const kern_swiglu_args *args);
BASE_MUST_CHECK base_status kern_cuda_turns(void *stream, const kern_turns_args *args);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_CUDA_OPS_H */
