/* kernels/cuda/exchange_row.cuh - one row of partials: a warp sends this rank's to its peers, polls for theirs, and merges what has
 * come as merge.cu does.  Where its own comes from is the kernel's matter. */
#ifndef KERNELS_CUDA_EXCHANGE_ROW_CUH
#define KERNELS_CUDA_EXCHANGE_ROW_CUH

#include "kernels/cuda/cuda_rotate.h"
#include "kernels/cuda/exchange_window.cuh"
#include "kernels/cuda/merge_row.cuh"

namespace exchange {

struct merge_job : end {
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

/* Of the rank that has most. */
int32_t most_heads(const kern_deal_args &deal);

/* Of all heads, or of own ones: deal (op_deal.h) says whose; NULL: all travel to all.  *quick_out: by the tagged wire.
 * Errors: BAD_INPUT (another shape). */
base_status merge_job_of(const cuda_exchange_port &port, const kern_merge_args &args,
                         const kern_deal_args *deal, merge_job *j_out, bool *quick_out);

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

/* A row between its ranks.  Made before the launch ahead has ended: nothing that hangs on it is read.  Lane r has to do with
 * lse of rank r. */
template <class Wire, int N, int D>
struct row_end {
    static constexpr int E = D / kWarp; /* neighbours of a row, as cuda_rotate.h has them */
    const merge_job &a;
    int row;
    int out_row; /* -1: not wanted */
    bool has_lse;
    char *lse_to, *lse_slot;
    char *to[N], *slots[N]; /* of the k-th rank after this one; of rank k */
    int places[E];
    cuda_rotation<D> rotation;

    __device__ __forceinline__ row_end(const merge_job &job, int at) : a(job), row(at), rotation{}
    {
        const int lane = threadIdx.x % kWarp;
        const int token = row / a.heads;
        const int own_head = row - token * a.heads - a.skipped;
        const bool wanted = own_head >= 0 && own_head < a.own;
        const bool is_rank = lane < a.n_ranks;
        out_row = wanted ? token * a.own + own_head : -1;
        has_lse = is_rank && lane != a.rank;
        lse_to = a.unit(is_rank ? lane : a.rank, a.rank, row, Wire::kRowBytes);
        lse_slot = a.unit(a.rank, is_rank ? lane : a.rank, row, Wire::kRowBytes);
#pragma unroll
        for (int k = 0; k < N; k++) {
            to[k] = a.unit(k < a.n_ranks ? a.after(k) : a.rank, a.rank, row, Wire::kRowBytes);
            slots[k] = a.unit(a.rank, k < a.n_ranks ? k : a.rank, row, Wire::kRowBytes);
        }
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
    }

    /* own: what the k-th rank after this one merges, first what is merged here; lse: of what rank `lane` merges. */
    __device__ __forceinline__ void exchange(patience p, uint32_t last_turn,
                                             const float (&own)[N][E], float lse)
    {
        const int lane = threadIdx.x % kWarp;
        const uint32_t turn = Wire::next(last_turn);
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
};

} // namespace exchange

#endif /* KERNELS_CUDA_EXCHANGE_ROW_CUH */
