/* One warp a row: it sends its row to all peers, polls for theirs, and merges what has come as merge.cu does.  Nothing
 * is waited for but words: no fence, no barrier, no flag. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/exchange_row.cuh"

namespace exchange {

int32_t most_heads(const kern_deal_args &deal)
{
    int32_t most = 0;
    for (int32_t r = 0; r < deal.n_ranks; r++) {
        const int32_t n = deal.begins[r + 1] - deal.begins[r];
        most = n > most ? n : most;
    }
    return most;
}

static bool deal_fits(const cuda_exchange_port &port, const kern_merge_args &args,
                      const kern_deal_args &deal)
{
    return deal.n_ranks == port.shape.n_ranks && deal.head_dim == args.head_dim &&
           cuda_exchange_has_room(&port.shape, &deal);
}

/* A rank with fewer heads than another is sent some that it drops, so that all ranks exchange the same rows. */
static void take_deal(const kern_deal_args &deal, int32_t rank, merge_job *j)
{
    j->all_heads = deal.n_heads;
    j->heads = most_heads(deal);
    j->rows = deal.n_tokens * j->heads;
    for (int32_t r = 0; r < deal.n_ranks; r++) {
        const int32_t last = deal.n_heads - j->heads; /* that leaves as many behind it */
        j->firsts[r] = deal.begins[r] < last ? deal.begins[r] : last;
    }
    j->skipped = deal.begins[rank] - j->firsts[rank];
    j->own = deal.begins[rank + 1] - deal.begins[rank];
}

base_status merge_job_of(const cuda_exchange_port &port, const kern_merge_args &args,
                         const kern_deal_args *deal, merge_job *j_out, bool *quick_out)
{
    const cuda_exchange_shape &shape = port.shape;
    const layout at = layout_of(shape);
    merge_job j = {};

    if (deal != nullptr && !deal_fits(port, args, *deal)) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "exchange of %d tokens' heads of %d to %d ranks; made for %d rows of %d "
                         "over %d ranks",
                         deal->n_tokens, deal->head_dim, deal->n_ranks, shape.max_rows,
                         shape.head_dim, shape.n_ranks);
    }
    j.rows = args.rows;
    j.all_heads = j.heads = j.own = args.n_heads > 0 ? args.n_heads : 1;
    if (deal != nullptr) {
        take_deal(*deal, port.rank, &j);
        if (args.rows != deal->n_tokens * j.own) {
            return BASE_FAIL(BASE_BAD_INPUT, "exchange: %d rows of %d tokens of %d heads",
                             args.rows, deal->n_tokens, j.own);
        }
    }
    if (args.n_ranks != shape.n_ranks || args.head_dim != shape.head_dim ||
        j.rows > shape.max_rows || shape.max_rows > CUDA_EXCHANGE_MAX_ROWS) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "exchange of %d rows of %d over %d ranks; made for %d rows of %d over %d "
                         "ranks",
                         j.rows, args.head_dim, args.n_ranks, shape.max_rows, shape.head_dim,
                         shape.n_ranks);
    }
    *quick_out = j.rows <= CUDA_EXCHANGE_QUICK_ROWS;
    static_cast<end &>(j) = end_of(port, at, *quick_out ? at.quick_rows : at.rows);
    j.o_out = args.o;
    j.lse_out = args.lse;
    j.formats = args.formats;
    j.group = args.formats != nullptr ? args.n_heads / args.n_kv_heads : 1;
    *j_out = j;
    return BASE_OK;
}

} // namespace exchange

namespace {

using namespace exchange;

constexpr int kMaxWarps =
    8; /* a CTA; two of these fit an SM, so those of MAX_ROWS fit a GPU of 128 SMs */
static_assert(CUDA_EXCHANGE_MAX_ROWS <= 128 * 2 * kMaxWarps, "all rows are under way at once");

struct rows_job {
    merge_job m;
    const float *o, *lse; /* of this rank */
};

/* Neighbours of a row, as cuda_rotate.h has them. */
template <int E>
__device__ __forceinline__ void load_row(const float *row, int lane, float (&x)[E])
{
    if constexpr (E == 4) {
        const float4 v = reinterpret_cast<const float4 *>(row)[lane];
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    } else {
        const float2 v = reinterpret_cast<const float2 *>(row)[lane];
        x[0] = v.x, x[1] = v.y;
    }
}

template <class Wire, int N, int D>
__global__ void __launch_bounds__(kWarp *kMaxWarps, 2)
    merge_rows(const __grid_constant__ rows_job j)
{
    constexpr int E = D / kWarp;
    const merge_job &a = j.m;
    const int lane = threadIdx.x % kWarp;
    const int row = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp;
    if (row >= a.rows) {
        return;
    }
    const int token = row / a.heads;
    const int64_t source = (int64_t)token * a.all_heads + row - token * a.heads;
    const float *lse_from = j.lse + source + a.firsts[lane < a.n_ranks ? lane : a.rank];
    row_end<Wire, N, D> r(a, row);
    cuda_after_previous();

    const patience p = a.waiting();
    const uint32_t turn = a.turns[row];
    const float lse = *lse_from;
    float own[N][E];
#pragma unroll
    for (int k = 0; k < N; k++) {
        if (k < a.n_ranks) {
            load_row(j.o + (source + a.firsts[a.after(k)]) * D, lane, own[k]);
        }
    }
    r.exchange(p, turn, own, lse);
}

/* Few rows, a warp each, on as many SMs as that takes; more share CTAs. */
template <class Wire, int N, int D>
base_status launch(cudaStream_t stream, const rows_job &j)
{
    const int rows = j.m.rows;
    const int spread = rows <= 32 ? 8 : rows <= 64 ? 16 : 32;
    const int wanted = (rows + spread - 1) / spread;
    const int n_warps = wanted < kMaxWarps ? wanted : kMaxWarps;
    cuda_launch(merge_rows<Wire, N, D>, dim3((rows + n_warps - 1) / n_warps), kWarp * n_warps,
                stream, j);
    return CUDA_LAUNCHED("exchange");
}

template <class Wire, int D>
base_status launch_for_ranks(cudaStream_t stream, const rows_job &j)
{
    return j.m.n_ranks <= 2   ? launch<Wire, 2, D>(stream, j)
           : j.m.n_ranks <= 4 ? launch<Wire, 4, D>(stream, j)
                              : launch<Wire, 8, D>(stream, j);
}

template <template <int> class Wire>
base_status launch_for_dim(cudaStream_t stream, int head_dim, const rows_job &j)
{
    return head_dim == 64 ? launch_for_ranks<Wire<2>, 64>(stream, j)
                          : launch_for_ranks<Wire<4>, 128>(stream, j);
}

/* x: this rank's partials, of n_rows rows. */
base_status exchange_rows(cudaStream_t stream, const cuda_exchange_port &port,
                          const kern_merge_args &args, const kern_deal_args *deal, const float *x,
                          int64_t n_rows)
{
    rows_job j = {};
    bool quick = false;
    const base_status st = merge_job_of(port, args, deal, &j.m, &quick);

    if (st != BASE_OK) {
        return st;
    }
    if ((uintptr_t)x % 16 != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "exchange: partials are not 16-byte aligned");
    }
    if (j.m.rows == 0) {
        return BASE_OK;
    }
    j.o = x;
    j.lse = x + n_rows * args.head_dim;
    return quick ? launch_for_dim<tagged_wire>(stream, args.head_dim, j)
                 : launch_for_dim<marked_wire>(stream, args.head_dim, j);
}

} // namespace

extern "C" base_status cuda_exchange_merge(void *stream, const cuda_exchange_port *port,
                                           const kern_merge_args *args)
{
    return exchange_rows(static_cast<cudaStream_t>(stream), *port, *args, nullptr,
                         args->partials + port->rank * args->rank_stride, args->rows);
}

extern "C" bool cuda_exchange_has_room(const cuda_exchange_shape *shape, const kern_deal_args *deal)
{
    return (int64_t)deal->n_tokens * most_heads(*deal) <= shape->max_rows;
}

extern "C" base_status cuda_exchange_merge_own(void *stream, const cuda_exchange_port *port,
                                               const kern_deal_args *deal,
                                               const kern_merge_args *args)
{
    return exchange_rows(static_cast<cudaStream_t>(stream), *port, *args, deal, deal->x,
                         (int64_t)deal->n_tokens * deal->n_heads);
}
