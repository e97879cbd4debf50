#include "kernels/comm/comm_nccl_state.h"
#include "kernels/compose.h"
#include "kernels/cuda/merge_ar.h"

#define TIMEOUT_MS 30000 /* of handing a call to the stream; who waits for the ops has the step's */

/* The next rank's place has room for the largest lse of each row. */
bool comm_nccl_ar_can_merge(const comm *c, const kern_merge_args *args)
{
    return c->size > 1 && args->rows > 0;
}

base_status comm_nccl_ar_merge(comm *c, const kern_merge_args *args)
{
    base_status st = BASE_OK;
    nccl_comm *n = (nccl_comm *)c;
    const int64_t n_rows = args->rows;
    const int64_t o_size = n_rows * args->head_dim;
    const size_t n_bytes = (size_t)(args->rank_stride * c->size) * sizeof(float);
    kern_merge_args a = *args;
    void *at = NULL;

    BASE_TRY(st, out, cuda_share_find(n->ctx, "partials", a.partials, n_bytes, &at));
    float *const mine = (float *)at + c->rank * a.rank_stride;
    float *const top = (float *)at + (c->rank + 1) % c->size * a.rank_stride;
    BASE_TRY(st, out, cuda_share_find(n->ctx, "o", a.o, (size_t)o_size * sizeof(float), &at));
    a.o = at;
    if (a.lse != NULL) {
        BASE_TRY(st, out,
                 cuda_share_find(n->ctx, "lse", a.lse, (size_t)n_rows * sizeof(float), &at));
        a.lse = at;
    }
    BASE_TRY(st, out, comm_nccl_reduce(n, mine + o_size, top, n_rows, ncclMax, TIMEOUT_MS));
    BASE_TRY(st, out, cuda_merge_ar_weigh(n->stream, mine, top, a.rows, a.head_dim));
    BASE_TRY(st, out, comm_nccl_reduce(n, mine, mine, o_size + n_rows, ncclSum, TIMEOUT_MS));
    BASE_TRY(st, out, cuda_merge_ar_finish(n->stream, mine, top, &a));
    if (args->formats != NULL) {
        const kern_basis_args basis =
            kern_outputs_basis(args->o, args->formats, args->rows / args->n_heads, args->n_heads,
                               args->n_kv_heads, args->head_dim);
        st = kern_basis(n->ctx, &basis);
    }
out:
    return st;
}
