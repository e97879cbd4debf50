/* The second launch of decode attention: some CTAs, each some dims, add the parts of one query row and write it; or, a
 * cluster, bring it together in the first, which turns it out of the page basis.  That is a kernel of its own: one that
 * has the code of the turn in it makes launches of attention 1 to 6 us longer even where no row is turned. */
#include "kernels/cuda/attn_parts.cuh"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_rotate.h"

namespace {

/* One warp: a row, which may lie where it goes, out of the page basis. */
template <int D>
__device__ void turn_row(const cuda_rotation<D> &rotation, const float *row, float *o)
{
    constexpr int E = D / 32;
    const int dim = (int)threadIdx.x % 32 * E;
    float x[E];
#pragma unroll
    for (int e = 0; e < E; e++) {
        x[e] = row[dim + e];
    }
    cuda_rotate<D>(rotation, true, x);
    __syncwarp(); /* the row has been read */
#pragma unroll
    for (int e = 0; e < E; e++) {
        o[rotation.order == nullptr ? dim + e : rotation.order[dim + e]] = x[e];
    }
}

/* Grid: token, query head, slice of its dims; slices are a cluster where the row is to be turned.  Few threads, so that
 * there is room for them while decode CTAs still have their registers. */
template <int D, int R, bool TURNS>
__global__ void __launch_bounds__(ATTN_ADDERS) attn_combine(const __grid_constant__ attn_job job)
{
    __shared__ attn_row row;
    __shared__ attn_places places;
    __shared__ attn_row_sums<D> sums;
    __shared__ float4 together[TURNS ? D / 4 : 1]; /* of the first CTA */
    const int thread = (int)threadIdx.x;
    const attn_adder adder = attn_adder_of<D>(thread, (int)blockIdx.z, (int)gridDim.z);
    const int token = (int)blockIdx.x;
    const int query_head = (int)blockIdx.y;
    const bool turns = TURNS && blockIdx.z == 0 && threadIdx.x < 32;
    float *o = job.a.o + ((int64_t)token * job.a.n_heads + query_head) * D;
    ptx_let_next_launch_begin();
    if (threadIdx.x < 32) {
        attn_find_row<D, R>(job, token, query_head, &row);
    }
    if constexpr (TURNS) {
        attn_meet(); /* the head is here, and the first CTA */
    } else {
        __syncthreads(); /* the head is here */
    }
    const int n_parts = attn_find_parts<D, R>(job, token, query_head, thread, row, places);
    __syncthreads(); /* the places are here */
    cuda_rotation<D> rotation = {};
    if (turns) {
        const kern_side *side = &job.a.formats[row.head.head].v;
        rotation = cuda_rotation_of<D>(side, side->signs);
    }
    if (n_parts == 1) {
        ptx_wait_for_launch_before(); /* who waits for this launch waits for the one before, too */
        if (turns) {
            turn_row<D>(rotation, o, o);
        }
        return;
    }
    attn_add_parts<D>(job, adder, n_parts, thread, places, sums);
    __syncthreads(); /* the warps' sums are here */
    if (thread < adder.n_vectors) {
        const attn_sum sum = attn_add_warps<D>(sums, adder.vector);
        if constexpr (TURNS) {
            attn_put_first(&together[adder.at_vector], attn_mean(sum));
        } else {
            ((float4 *)o)[adder.at_vector] = attn_mean(sum);
        }
        if (adder.at_vector == 0) {
            job.a.lse[(int64_t)token * job.a.n_heads + query_head] = attn_lse(sum);
        }
    }
    if constexpr (TURNS) {
        attn_meet(); /* the row is here */
        if (turns) {
            turn_row<D>(rotation, (const float *)together, o);
        }
    }
}

template <int D, int R, bool TURNS>
base_status run_turning(cudaStream_t stream, const attn_job &job)
{
    const unsigned n_slices = attn_slices<D>((int64_t)job.a.n_tokens * job.a.n_heads);
    const dim3 grid((unsigned)job.a.n_tokens, (unsigned)job.a.n_heads, n_slices);
    return cuda_to_status(
        attn_launch_slices(attn_combine<D, R, TURNS>, grid, ATTN_ADDERS, TURNS, stream, job),
        "launch of attn's merge");
}

template <int D, int R>
base_status run(cudaStream_t stream, const attn_job &job)
{
    return job.a.leaves_basis ? run_turning<D, R, true>(stream, job)
                              : run_turning<D, R, false>(stream, job);
}

} // namespace

base_status attn_run_combine(void *stream, const attn_job &job, int head_dim, bool few)
{
    const auto s = static_cast<cudaStream_t>(stream);
    if (head_dim == 64) {
        return few ? run<64, 4>(s, job) : run<64, 8>(s, job);
    }
    return few ? run<128, 4>(s, job) : run<128, 8>(s, job);
}
