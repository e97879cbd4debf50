/* Rows are looked up as embeddings are. */
#include "kernels/cuda/cuda_ops.h"

extern "C" base_status kern_cuda_gather(void *stream, const kern_gather_args *a)
{
    const kern_embed_args rows = {
        a->rows, a->x, a->y, a->n_rows, a->n_x_rows, a->width, BASE_F32,
    };
    return kern_cuda_embed(stream, &rows);
}
