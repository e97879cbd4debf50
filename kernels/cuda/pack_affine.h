/* kernels/cuda/pack_affine.h - the page writer of layers with affine sides (CUDA_AFFINE); private to this folder. */
#ifndef KERNELS_CUDA_PACK_AFFINE_H
#define KERNELS_CUDA_PACK_AFFINE_H

#include "kernels/cuda/formats.h"

/* kern_cuda_pack (cuda_pages.h) for formats of the affine family. */
base_status pack_affine(void *stream, const kern_cuda_formats *formats, const kern_pack_args *a);

#endif /* KERNELS_CUDA_PACK_AFFINE_H */
