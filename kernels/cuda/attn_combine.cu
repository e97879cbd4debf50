/* The second launch of decode attention: some CTAs, each some dims, add the parts of one query row and write it; or, a
 * cluster, bring it together in the first, which turns it out of the page basis.  That is a kernel of its own: one that
 * has the code of the turn in it makes launches of attention 1 to 6 us longer even where no row is turned.
 *
 * All but the parts is known before the launch ahead has ended. */
#include "kernels/cuda/attn_sum.cuh"
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/cuda_rotate.h"

namespace {

constexpr int kWarps = 4; /* few enough to be there while decode CTAs still have their registers */
constexpr int kBatch = 5; /* parts that a thread asks for at once */

/* Of the lanes that differ in the bits of `step` and above. */
__device__ __forceinline__ attn_sum add_lanes(attn_sum s, int step)
{
    for (; step < 32; step *= 2) {
        const attn_sum both[2] = {
            s,
            {make_float4(__shfl_xor_sync(~0u, s.o.x, step), __shfl_xor_sync(~0u, s.o.y, step),
                         __shfl_xor_sync(~0u, s.o.z, step), __shfl_xor_sync(~0u, s.o.w, step)),
             __shfl_xor_sync(~0u, s.m, step), __shfl_xor_sync(~0u, s.l, step)}};
        s = attn_add(both);
    }
    return s;
}

/* All threads of a cluster. */
__device__ __forceinline__ void meet()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* x to the place of `own` in the cluster's first CTA. */
__device__ __forceinline__ void put_first(float4 *own, float4 x)
{
    uint32_t to;
    asm("mapa.shared::cluster.u32 %0,%1,0;" : "=r"(to) : "r"(ptx_shared(own)));
    asm volatile("st.shared::cluster.v4.f32 [%0],{%1,%2,%3,%4};" ::"r"(to), "f"(x.x), "f"(x.y),
                 "f"(x.z), "f"(x.w)
                 : "memory");
}

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

/* Grid: token, query head, slice of its dims; slices are a cluster where the row is to be turned. */
template <int D, int R, bool TURNS>
__global__ void __launch_bounds__(kWarps * 32) attn_combine(const __grid_constant__ attn_job job)
{
    __shared__ attn_head head;
    __shared__ uint32_t total;
    __shared__ int places[ATTN_MAX_CTAS]; /* of the parts, among their rows; -1: it is not there */
    __shared__ attn_sum sums[kWarps][D / 4];
    __shared__ float4 together[TURNS ? D / 4 : 1];    /* of the first CTA */
    const int n_vectors = D / 4 / (int)gridDim.z;     /* 8, 16 or 32 */
    const int n_groups = (int)blockDim.x / n_vectors; /* each adds every n_groups-th part */
    const int group = (int)threadIdx.x / n_vectors;
    const int vector = (int)threadIdx.x % n_vectors;
    const int at_vector = (int)blockIdx.z * n_vectors + vector;
    const int token = (int)blockIdx.x;
    const int query_head = (int)blockIdx.y;
    const bool turns = TURNS && blockIdx.z == 0 && threadIdx.x < 32;
    float *o = job.a.o + ((int64_t)token * job.a.n_heads + query_head) * D;
    ptx_let_next_launch_begin();
    if (threadIdx.x < 32) {
        const attn_survey survey = attn_survey_of<D, R>(job, attn_own_seq(job));
        attn_head found;
        attn_find<D, R>(job, survey, 0, token, query_head, &found);
        if (threadIdx.x == 0) {
            total = survey.total;
            head = found;
        }
    }
    if constexpr (TURNS) {
        meet(); /* the head is here, and the first CTA */
    } else {
        __syncthreads(); /* the head is here */
    }
    const attn_shares shares(job, total);
    const int first = (int)shares.owner(head.at);
    const int last = (int)shares.owner(head.at + head.item_at(head.cost.n_pages));
    const int n_parts = last - first + 1;
    for (int i = (int)threadIdx.x; i < n_parts; i += (int)blockDim.x) {
        const int c = first + i;
        /* a CTA may lie inside one page, and have no part */
        const bool is_there = head.first_item(shares.begin((uint32_t)c)) !=
                              head.first_item(shares.begin((uint32_t)c + 1));
        const int row = ((token - head.seq.first_token) * job.group + query_head % job.group) % R;
        places[i] = is_there ? (c * ATTN_PARTS + (i == 0 ? 1 : 0)) * ATTN_MAX_ROWS + row : -1;
    }
    __syncthreads(); /* the places are here */
    cuda_rotation<D> rotation = {};
    if (turns) {
        const kern_side *side = &job.a.formats[head.head].v;
        rotation = cuda_rotation_of<D>(side, side->signs);
    }
    if (first == last) {              /* a CTA had all of it */
        ptx_wait_for_launch_before(); /* who waits for this launch waits for the one before, too */
        if (turns) {
            turn_row<D>(rotation, o, o);
        }
        return;
    }

    attn_sum sum = attn_no_sum();
    for (int p = group; p < n_parts; p += kBatch * n_groups) {
        int from[kBatch];
        attn_sum parts[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            const int at = p + i * n_groups;
            from[i] = at < n_parts ? places[at] : -1;
        }
        ptx_wait_for_launch_before();
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            parts[i] = attn_no_sum();
            if (from[i] >= 0) {
                const float2 ml = __ldcg(job.part_ml + from[i]);
                parts[i].o = __ldcg((const float4 *)job.part_o + from[i] * (D / 4) + at_vector);
                parts[i].m = ml.x;
                parts[i].l = ml.y;
            }
        }
        const attn_sum both[2] = {sum, attn_add(parts)};
        sum = attn_add(both);
    }
    sum = add_lanes(sum, n_vectors);
    if (threadIdx.x % 32 < n_vectors) {
        sums[threadIdx.x / 32][vector] = sum;
    }
    __syncthreads(); /* the warps' sums are here */
    if (threadIdx.x < n_vectors) {
        attn_sum all[kWarps];
#pragma unroll
        for (int i = 0; i < kWarps; i++) {
            all[i] = sums[i][vector];
        }
        sum = attn_add(all);
        if constexpr (TURNS) {
            put_first(&together[at_vector], attn_mean(sum));
        } else {
            ((float4 *)o)[at_vector] = attn_mean(sum);
        }
        if (at_vector == 0) {
            job.a.lse[(int64_t)token * job.a.n_heads + query_head] = attn_lse(sum);
        }
    }
    if constexpr (TURNS) {
        meet(); /* the row is here */
        if (turns) {
            turn_row<D>(rotation, (const float *)together, o);
        }
    }
}

template <int D, int R, bool TURNS>
base_status run_turning(cudaStream_t stream, const attn_job &job)
{
    const int64_t n_rows = (int64_t)job.a.n_tokens * job.a.n_heads;
    const unsigned n_slices = n_rows > 64              ? 1
                              : n_rows > 32 || D == 64 ? 2
                                                       : 4; /* about a CTA a core */
    const base_status st =
        cuda_to_status(cuda_wants_shared(attn_combine<D, R, TURNS>), "attn's merge");
    if (st != BASE_OK) {
        return st;
    }
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = 1;
    attributes[1].val.clusterDim.y = 1;
    attributes[1].val.clusterDim.z = n_slices;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)job.a.n_tokens, (unsigned)job.a.n_heads, n_slices);
    config.blockDim = dim3(kWarps * 32);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = TURNS && n_slices > 1 ? 2 : 1;
    return cuda_to_status(cudaLaunchKernelEx(&config, attn_combine<D, R, TURNS>, job),
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
