/* kernels/cuda/merge_ar.h - what a merge by all-reduces does between and after them, with rows > 0.
 *
 *   top = max over ranks of lse;  weigh;  sums = sum over ranks of partials;  finish
 *
 * Device memory throughout.  Errors: DEVICE_LOST. */
#ifndef KERNELS_CUDA_MERGE_AR_H
#define KERNELS_CUDA_MERGE_AR_H

#include "base/status.h"
#include "kernels/op_merge.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* part: o [rows, D], then lse [rows]; o becomes exp(lse - top) o, and lse the weight. */
BASE_MUST_CHECK base_status cuda_merge_ar_weigh(cudaStream_t stream, float *part, const float *top,
                                                int32_t rows, int32_t head_dim);
/* sums: of part.  Writes args' o and lse; o stays in the basis that it is in. */
BASE_MUST_CHECK base_status cuda_merge_ar_finish(cudaStream_t stream, const float *sums,
                                                 const float *top, const kern_merge_args *args);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_MERGE_AR_H */
