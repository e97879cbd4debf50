/* kernels/cuda/pack_affine.h - the page writer of layers with affine sides (CUDA_AFFINE); private to this folder. */
#ifndef KERNELS_CUDA_PACK_AFFINE_H
#define KERNELS_CUDA_PACK_AFFINE_H

#include "kernels/cuda/formats.h"

/* A kernel that writes pages: a CTA of n_threads for each side of each head of each block.  ahead: as pack_rows_ahead. */
struct pack_writer {
    void (*kernel)(kern_pack_args, cuda_layer, unsigned ahead);
    int n_threads;
};

/* That of the affine family, D 64 or 128. */
struct pack_writer pack_affine_writer(int head_dim);

#endif /* KERNELS_CUDA_PACK_AFFINE_H */
