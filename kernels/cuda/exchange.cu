/* One warp a row: it sends its row to all peers, polls for theirs, and merges what has come as merge.cu does.  Nothing
 * is waited for but words: no fence, no barrier, no flag. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_rotate.h"
#include "kernels/cuda/exchange_window.cuh"
#include "kernels/cuda/merge_row.cuh"

namespace {

using namespace exchange;

constexpr int kMaxWarps =
    8; /* a CTA; two of these fit an SM, so those of MAX_ROWS fit a GPU of 128 SMs */
static_assert(CUDA_EXCHANGE_MAX_ROWS <= 128 * 2 * kMaxWarps, "all rows are under way at once");

struct merge_job : end {
    const float *o, *lse; /* of this rank */
    float *o_out, *lse_out;
    const kern_head_format *formats;
    int32_t rows;      /* that travel to a rank */
    int32_t heads;     /* of a token that travel to a rank: from firsts[rank] on */
    int32_t all_heads; /* of a token */
    int32_t firsts[CUDA_EXCHANGE_MAX_RANKS];
    int32_t skipped,
        own;       /* of those that travel here, `own` after the first `skipped` are wanted */
    int32_t group; /* query heads of a KV head */
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

/* Polls until rows of all peers, and their lse, have come: rank r's at slots[r], lse of rank `lane` at lse_slot, if
 * has_lse.  False in all lanes: a peer was lost. */
template <class Wire, int N, int E>
__device__ __forceinline__ bool receive(const merge_job &a, patience p, char *const (&slots)[N],
                                        char *lse_slot, bool has_lse, uint32_t turn,
                                        float (&x)[N][E], float *lse)
{
    const int lane = threadIdx.x % kWarp;
    bool gave_up = false;
    while (!gave_up) {
        typename Wire::seen seen[N];
        int missing = -1;
#pragma unroll
        for (int r = 0; r < N; r++) {
            if (r < a.n_ranks && r != a.rank) {
                Wire::look(slots[r], lane, &seen[r]);
            }
        }
        if (has_lse && !Wire::take_lse(lse_slot, turn, lse)) {
            missing = lane;
        }
#pragma unroll
        for (int r = 0; r < N; r++) {
            if (r < a.n_ranks && r != a.rank && !Wire::take(seen[r], turn, x[r])) {
                missing = r;
            }
        }
        if (missing < 0) {
            break;
        }
        gave_up = !p.lasts(missing);
    }
    if (__any_sync(CUDA_WARP_ALL, gave_up)) {
        return false;
    }
#pragma unroll
    for (int r = 0; r < N; r++) {
        if (r < a.n_ranks && r != a.rank) {
            Wire::wipe(slots[r], lane);
        }
    }
    if (has_lse) {
        Wire::wipe_lse(lse_slot);
    }
    return true;
}

/* o of the merged row; x: rows of all ranks, my_lse: lse of rank `lane`. */
template <int N, int E>
__device__ __forceinline__ merge_sum merge(const merge_job &a, const float (&x)[N][E], float my_lse,
                                           float (&o)[E])
{
    merge_sum s;
    float lse[N];
#pragma unroll
    for (int r = 0; r < N; r++) {
        lse[r] = __shfl_sync(CUDA_WARP_ALL, my_lse, r);
        if (r < a.n_ranks) {
            merge_top(s, lse[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < N; r++) {
        if (r < a.n_ranks && lse[r] != -INFINITY) {
            const float w = merge_weigh(s, lse[r]);
#pragma unroll
            for (int e = 0; e < E; e++) {
                o[e] = fmaf(w, x[r][e], o[e]);
            }
        }
    }
    const float scale = merge_scale(s);
#pragma unroll
    for (int e = 0; e < E; e++) {
        o[e] = merge_finish(o[e], scale);
    }
    return s;
}

/* All that does not hang on the kernel ahead is found before it has ended.  Lane r has to do with lse of rank r. */
template <class Wire, int N, int D>
__global__ void __launch_bounds__(kWarp *kMaxWarps, 2)
    merge_rows(const __grid_constant__ merge_job a)
{
    constexpr int E = D / kWarp;
    const int lane = threadIdx.x % kWarp;
    const int row = blockIdx.x * (blockDim.x / kWarp) + threadIdx.x / kWarp;
    if (row >= a.rows) {
        return;
    }
    const int token = row / a.heads;
    const int head = row - token * a.heads;
    const int64_t source = (int64_t)token * a.all_heads + head;
    const int own_head = head - a.skipped;
    const bool wanted = own_head >= 0 && own_head < a.own;
    const int out_row = wanted ? token * a.own + own_head : -1;
    const bool is_rank = lane < a.n_ranks;
    const bool has_lse = is_rank && lane != a.rank;
    const float *lse_from = a.lse + source + a.firsts[is_rank ? lane : a.rank];
    char *lse_to = a.unit(is_rank ? lane : a.rank, a.rank, row, Wire::kRowBytes);
    char *lse_slot = a.unit(a.rank, is_rank ? lane : a.rank, row, Wire::kRowBytes);
    char *to[N], *slots[N];
#pragma unroll
    for (int k = 0; k < N; k++) {
        to[k] = a.unit(k < a.n_ranks ? a.after(k) : a.rank, a.rank, row, Wire::kRowBytes);
        slots[k] = a.unit(a.rank, k < a.n_ranks ? k : a.rank, row, Wire::kRowBytes);
    }
    int places[E];
    cuda_rotation<D> rotation = {};
    if (a.formats != nullptr) {
        const kern_side *side = &a.formats[(wanted ? own_head : 0) / a.group].v;
        rotation = cuda_rotation_of<D>(side, side->signs);
    }
#pragma unroll
    for (int e = 0; e < E; e++) {
        places[e] = lane * E + e;
        if (rotation.order != nullptr) {
            places[e] = rotation.order[places[e]];
        }
    }
    cuda_after_previous();

    const patience p = a.waiting();
    const uint32_t turn = Wire::next(a.turns[row]);
    float lse = *lse_from;
    float own[N][E]; /* what the k-th rank after this one merges; first what is merged here */
#pragma unroll
    for (int k = 0; k < N; k++) {
        if (k < a.n_ranks) {
            load_row(a.o + (source + a.firsts[a.after(k)]) * D, lane, own[k]);
        }
    }
    const uint32_t buffer = Wire::buffer_of(turn) * a.buffer_bytes;
#pragma unroll
    for (int k = 1; k < N; k++) {
        if (k < a.n_ranks) {
            Wire::put(to[k] + buffer, lane, own[k], turn);
        }
    }
    if (has_lse) {
        Wire::put_lse(lse_to + buffer, lse, turn);
    }

    float x[N][E];
#pragma unroll
    for (int r = 0; r < N; r++) {
        slots[r] += buffer;
    }
    if (!receive<Wire>(a, p, slots, lse_slot + buffer, has_lse, turn, x, &lse)) {
        return;
    }
#pragma unroll
    for (int r = 0; r < N; r++) {
#pragma unroll
        for (int e = 0; e < E; e++) {
            x[r][e] = r == a.rank ? own[0][e] : x[r][e];
        }
    }
    float o[E] = {};
    const merge_sum s = merge(a, x, lse, o);
    if (a.formats != nullptr) {
        cuda_rotate<D>(rotation, true, o);
    }
    if (lane == 0) {
        a.turns[row] = turn;
    }
    if (out_row < 0) {
        return;
    }
    float *out = a.o_out + (int64_t)out_row * D;
#pragma unroll
    for (int e = 0; e < E; e++) {
        out[places[e]] = o[e];
    }
    if (lane == 0 && a.lse_out != nullptr) {
        a.lse_out[out_row] = merge_lse(s);
    }
}

/* Few rows, a warp each, on as many SMs as that takes; more share CTAs. */
template <class Wire, int N, int D>
base_status launch(cudaStream_t stream, const merge_job &j)
{
    const int spread = j.rows <= 32 ? 8 : j.rows <= 64 ? 16 : 32;
    const int wanted = (j.rows + spread - 1) / spread;
    const int n_warps = wanted < kMaxWarps ? wanted : kMaxWarps;
    cuda_launch(merge_rows<Wire, N, D>, dim3((j.rows + n_warps - 1) / n_warps), kWarp * n_warps,
                stream, j);
    return CUDA_LAUNCHED("exchange");
}

template <class Wire, int D>
base_status launch_for_ranks(cudaStream_t stream, const merge_job &j)
{
    return j.n_ranks <= 2   ? launch<Wire, 2, D>(stream, j)
           : j.n_ranks <= 4 ? launch<Wire, 4, D>(stream, j)
                            : launch<Wire, 8, D>(stream, j);
}

template <template <int> class Wire>
base_status launch_for_dim(cudaStream_t stream, int head_dim, const merge_job &j)
{
    return head_dim == 64 ? launch_for_ranks<Wire<2>, 64>(stream, j)
                          : launch_for_ranks<Wire<4>, 128>(stream, j);
}

/* x: this rank's partials, of n_rows rows. */
base_status exchange_rows(cudaStream_t stream, const cuda_exchange_port &port,
                          const kern_merge_args &args, const float *x, int64_t n_rows, merge_job j)
{
    const cuda_exchange_shape &shape = port.shape;
    const layout at = layout_of(shape);

    if (args.n_ranks != shape.n_ranks || args.head_dim != shape.head_dim ||
        j.rows > shape.max_rows || shape.max_rows > CUDA_EXCHANGE_MAX_ROWS) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "exchange of %d rows of %d over %d ranks; made for %d rows of %d over %d "
                         "ranks",
                         j.rows, args.head_dim, args.n_ranks, shape.max_rows, shape.head_dim,
                         shape.n_ranks);
    }
    if ((uintptr_t)x % 16 != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "exchange: partials are not 16-byte aligned");
    }
    if (j.rows == 0) {
        return BASE_OK;
    }
    const bool quick = j.rows <= CUDA_EXCHANGE_QUICK_ROWS;
    static_cast<end &>(j) = end_of(port, at, quick ? at.quick_rows : at.rows);
    j.o = x;
    j.lse = x + n_rows * args.head_dim;
    j.o_out = args.o;
    j.lse_out = args.lse;
    j.formats = args.formats;
    j.group = args.formats != nullptr ? args.n_heads / args.n_kv_heads : 1;
    return quick ? launch_for_dim<tagged_wire>(stream, args.head_dim, j)
                 : launch_for_dim<marked_wire>(stream, args.head_dim, j);
}

/* Heads of the rank that has most. */
int32_t most_heads(const kern_deal_args *deal)
{
    int32_t most = 0;
    for (int32_t r = 0; r < deal->n_ranks; r++) {
        const int32_t n = deal->begins[r + 1] - deal->begins[r];
        most = n > most ? n : most;
    }
    return most;
}

} // namespace

extern "C" base_status cuda_exchange_merge(void *stream, const cuda_exchange_port *port,
                                           const kern_merge_args *args)
{
    merge_job j = {};
    j.rows = args->rows;
    j.all_heads = j.heads = j.own = args->n_heads > 0 ? args->n_heads : 1;
    return exchange_rows(static_cast<cudaStream_t>(stream), *port, *args,
                         args->partials + port->rank * args->rank_stride, args->rows, j);
}

extern "C" bool cuda_exchange_has_room(const cuda_exchange_shape *shape, const kern_deal_args *deal)
{
    return (int64_t)deal->n_tokens * most_heads(deal) <= shape->max_rows;
}

/* A rank with fewer heads than another is sent some that it drops, so that all ranks exchange the same rows. */
extern "C" base_status cuda_exchange_merge_own(void *stream, const cuda_exchange_port *port,
                                               const kern_deal_args *deal,
                                               const kern_merge_args *args)
{
    const int32_t *begins = deal->begins;
    merge_job j = {};

    if (deal->n_ranks != port->shape.n_ranks || deal->head_dim != args->head_dim ||
        !cuda_exchange_has_room(&port->shape, deal)) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "exchange of %d tokens' heads of %d to %d ranks; made for %d rows of %d "
                         "over %d ranks",
                         deal->n_tokens, deal->head_dim, deal->n_ranks, port->shape.max_rows,
                         port->shape.head_dim, port->shape.n_ranks);
    }
    j.all_heads = deal->n_heads;
    j.heads = most_heads(deal);
    j.rows = deal->n_tokens * j.heads;
    for (int32_t r = 0; r < deal->n_ranks; r++) {
        const int32_t last = deal->n_heads - j.heads; /* that leaves as many behind it */
        j.firsts[r] = begins[r] < last ? begins[r] : last;
    }
    j.skipped = begins[port->rank] - j.firsts[port->rank];
    j.own = begins[port->rank + 1] - begins[port->rank];
    if (args->rows != deal->n_tokens * j.own) {
        return BASE_FAIL(BASE_BAD_INPUT, "exchange: %d rows of %d tokens of %d heads", args->rows,
                         deal->n_tokens, j.own);
    }
    return exchange_rows(static_cast<cudaStream_t>(stream), *port, *args, deal->x,
                         (int64_t)deal->n_tokens * deal->n_heads, j);
}
