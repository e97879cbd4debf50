/* A cluster a row that travels: its CTAs add up a slice each of this rank's parts, of one head, or of one for each rank that
 * merges its own; the first CTA brings the slices together, and a warp of its own there exchanges and merges them as
 * exchange.cu does with rows from memory.  What that warp needs is found while the others add. */
#include "kernels/cuda/attn_parts.cuh"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/exchange_attend.h"
#include "kernels/cuda/exchange_row.cuh"

namespace {

using namespace exchange;

constexpr int kMaxSources =
    4; /* heads of a CTA: more would leave the exchanging warp too few registers */
constexpr int kMaxAdders =
    96 * 3 * ATTN_ADDERS; /* of a launch: any Hopper GPU holds these at once */

struct attend_job {
    attn_job attn;
    merge_job merge;
    int32_t n_sources; /* heads that a CTA adds up: 1, or one for each rank */
};

/* Grid: row, 1, slice.  n_sources times ATTN_ADDERS threads and a warp. */
template <class Wire, int N, int D, int R>
__global__ void __launch_bounds__(ATTN_ADDERS *(N <= kMaxSources ? N : 1) + kWarp)
    attend_rows(const __grid_constant__ attend_job job)
{
    constexpr int E = D / kWarp;
    constexpr int S = N <= kMaxSources ? N : 1;
    __shared__ attn_row rows[S];
    __shared__ attn_places places[S];
    __shared__ attn_row_sums<D> sums[S];
    __shared__ float4 together[S][D / 4]; /* of the first CTA, like the next */
    __shared__ float lses[S];
    const merge_job &m = job.merge;
    const int n_sources = job.n_sources;
    const int source = (int)threadIdx.x / ATTN_ADDERS; /* n_sources: the warp that exchanges */
    const int thread = (int)threadIdx.x % ATTN_ADDERS;
    const int lane = (int)threadIdx.x % kWarp;
    const int row = (int)blockIdx.x;
    const int token = row / m.heads;

    ptx_let_next_launch_begin();
    if (source == n_sources) {
        row_end<Wire, N, D> end(m, row);
        attn_meet(); /* this and the next three: those of the threads that add */
        __syncthreads();
        ptx_wait_for_launch_before();
        const patience p = m.waiting();
        const uint32_t turn = m.turns[row];
        __syncthreads();
        attn_meet(); /* the slices are here */
        if (blockIdx.z != 0) {
            return;
        }
        float own[N][E];
#pragma unroll
        for (int k = 0; k < N; k++) {
            if (k < m.n_ranks) {
                const float4 *from = together[n_sources > 1 ? m.after(k) : 0];
#pragma unroll
                for (int e = 0; e < E; e++) {
                    own[k][e] = reinterpret_cast<const float *>(from)[lane * E + e];
                }
            }
        }
        end.exchange(p, turn, own, lses[n_sources > 1 && lane < m.n_ranks ? lane : 0]);
        return;
    }
    const attn_adder adder = attn_adder_of<D>(thread, (int)blockIdx.z, (int)gridDim.z);
    const int head = row - token * m.heads + m.firsts[source];
    const int64_t at = (int64_t)token * m.all_heads + head;
    if (thread < kWarp) {
        attn_find_row<D, R>(job.attn, token, head, &rows[source]);
    }
    attn_meet(); /* the heads are here, and the first CTA */
    const int n_parts =
        attn_find_parts<D, R>(job.attn, token, head, thread, rows[source], places[source]);
    __syncthreads(); /* the places are here */
    if (n_parts > 1) {
        attn_add_parts<D>(job.attn, adder, n_parts, thread, places[source], sums[source]);
    }
    ptx_wait_for_launch_before(); /* else a CTA had all of it, and has written o and lse */
    __syncthreads();              /* the warps' sums are here */
    if (thread < adder.n_vectors) {
        float4 mean;
        float lse = 0.0f;
        if (n_parts > 1) {
            const attn_sum sum = attn_add_warps<D>(sums[source], adder.vector);
            mean = attn_mean(sum);
            lse = attn_lse(sum);
        } else {
            mean = __ldcg((const float4 *)(job.attn.a.o + at * D) + adder.at_vector);
            lse = __ldcg(job.attn.a.lse + at);
        }
        attn_put_first(&together[source][adder.at_vector], mean);
        if (adder.at_vector == 0) {
            lses[source] = lse;
        }
    }
    attn_meet(); /* the row is here */
}

template <class Wire, int N, int D, int R>
base_status launch(cudaStream_t stream, const attend_job &job)
{
    const unsigned n_slices = attn_slices<D>((int64_t)job.attn.a.n_tokens * job.attn.a.n_heads);
    return cuda_to_status(
        attn_launch_slices(attend_rows<Wire, N, D, R>, dim3((unsigned)job.merge.rows, 1, n_slices),
                           job.n_sources * ATTN_ADDERS + kWarp, true, stream, job),
        "launch of attn's exchange");
}

template <class Wire, int D, int R>
base_status launch_for_ranks(cudaStream_t stream, const attend_job &job)
{
    const int32_t n = job.merge.n_ranks;
    return n <= 2   ? launch<Wire, 2, D, R>(stream, job)
           : n <= 4 ? launch<Wire, 4, D, R>(stream, job)
                    : launch<Wire, 8, D, R>(stream, job);
}

template <int D, int R>
base_status launch_for_wire(cudaStream_t stream, const attend_job &job, bool quick)
{
    constexpr int E = D / kWarp;
    return quick ? launch_for_ranks<tagged_wire<E>, D, R>(stream, job)
                 : launch_for_ranks<marked_wire<E>, D, R>(stream, job);
}

} // namespace

extern "C" bool cuda_exchange_can_attend(const cuda_exchange_shape *shape,
                                         const kern_attn_args *attn, const kern_deal_args *deal)
{
    const int64_t n_rows = (int64_t)attn->n_tokens * attn->n_heads;
    const int64_t n_slices =
        attn->head_dim == 64 ? attn_slices<64>(n_rows) : attn_slices<128>(n_rows);
    const int64_t n_sources = deal != nullptr ? shape->n_ranks : 1;
    const int64_t travel = deal != nullptr ? (int64_t)attn->n_tokens * most_heads(*deal) : n_rows;
    return n_rows > 0 && travel <= shape->max_rows && n_sources <= kMaxSources &&
           travel * n_slices * (n_sources * ATTN_ADDERS) <= kMaxAdders;
}

extern "C" base_status cuda_exchange_attend(void *stream, const cuda_exchange_port *port,
                                            const kern_cuda_attn_work *work,
                                            const kern_attn_args *attn, const kern_deal_args *deal,
                                            const kern_merge_args *merge)
{
    const auto s = static_cast<cudaStream_t>(stream);
    attend_job job = {};
    bool quick = false;
    bool few = false;
    base_status st = BASE_OK;

    if (!cuda_exchange_can_attend(&port->shape, attn, deal)) {
        return BASE_FAIL(BASE_BAD_INPUT, "exchange of attention: %d tokens of %d heads",
                         attn->n_tokens, attn->n_heads);
    }
    BASE_TRY(st, out, merge_job_of(*port, *merge, deal, &job.merge, &quick));
    job.n_sources = deal != nullptr ? port->shape.n_ranks : 1;
    BASE_TRY(st, out, attn_run_parts(stream, *work, *attn, &job.attn, &few));
    if (attn->head_dim == 64) {
        st = few ? launch_for_wire<64, 4>(s, job, quick) : launch_for_wire<64, 8>(s, job, quick);
    } else {
        st = few ? launch_for_wire<128, 4>(s, job, quick) : launch_for_wire<128, 8>(s, job, quick);
    }
out:
    return st;
}
