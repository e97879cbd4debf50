/* kernels/cuda/attn_parts.cuh - the parts that CTAs of decode attention have left of a query row: where they lie, and their
 * sum.  ATTN_ADDERS threads do it, `thread` of them each: of a slice of the row's dims, groups of threads add every
 * n_groups-th part.  In order, with a barrier of these threads after each but the last:
 *
 *   attn_find_row (one warp), attn_find_parts, attn_add_parts, attn_add_warps (the first n_vectors threads)
 *
 * All but the parts is known before the launch ahead has ended. */
#ifndef KERNELS_CUDA_ATTN_PARTS_CUH
#define KERNELS_CUDA_ATTN_PARTS_CUH

#include "kernels/cuda/attn_sum.cuh"
#include "kernels/cuda/cuda_launch.h"

#define ATTN_ADDER_WARPS 4
#define ATTN_ADDERS      (ATTN_ADDER_WARPS * 32)

/* Shared memory of a row's threads: arrays of their own, so that a store to one is none to another. */
struct attn_row {
    attn_head head;
    uint32_t total; /* of the line */
};
typedef int attn_places[ATTN_MAX_CTAS]; /* of the parts, among their rows; -1: it is not there */
template <int D>
using attn_row_sums = attn_sum[ATTN_ADDER_WARPS][D / 4];

/* What a thread adds up: four dims of every n_groups-th part. */
struct attn_adder {
    int n_vectors; /* of a slice: 8, 16 or 32 */
    int n_groups;
    int group;
    int vector;
    int at_vector; /* of the row */
};

template <int D>
static __device__ __forceinline__ attn_adder attn_adder_of(int thread, int slice, int n_slices)
{
    attn_adder a;
    a.n_vectors = D / 4 / n_slices;
    a.n_groups = ATTN_ADDERS / a.n_vectors;
    a.group = thread / a.n_vectors;
    a.vector = thread % a.n_vectors;
    a.at_vector = slice * a.n_vectors + a.vector;
    return a;
}

/* About a CTA a core, where each has a slice. */
template <int D>
static inline unsigned attn_slices(int64_t n_rows)
{
    return n_rows > 64 ? 1 : n_rows > 32 || D == 64 ? 2 : 4;
}

/* One warp. */
template <int D, int R>
static __device__ __forceinline__ void attn_find_row(const attn_job &job, int token, int query_head,
                                                     attn_row *row)
{
    const attn_survey survey = attn_survey_of<D, R>(job, attn_own_seq(job));
    attn_head found;
    attn_find<D, R>(job, survey, 0, token, query_head, &found);
    if (threadIdx.x % 32 == 0) {
        row->total = survey.total;
        row->head = found;
    }
}

/* How many; 1: a CTA had all of it, and has written o and lse. */
template <int D, int R>
static __device__ __forceinline__ int attn_find_parts(const attn_job &job, int token,
                                                      int query_head, int thread,
                                                      const attn_row &row, attn_places &places)
{
    const attn_head &head = row.head;
    const attn_shares shares(job, row.total);
    const int first = (int)shares.owner(head.at);
    const int last = (int)shares.owner(head.at + head.item_at(head.cost.n_pages));
    const int n_parts = last - first + 1;
#pragma unroll 1
    for (int i = thread; i < n_parts; i += ATTN_ADDERS) {
        const int c = first + i;
        /* a CTA may lie inside one page, and have no part */
        const bool is_there = head.first_item(shares.begin((uint32_t)c)) !=
                              head.first_item(shares.begin((uint32_t)c + 1));
        const int at = ((token - head.seq.first_token) * job.group + query_head % job.group) % R;
        places[i] = is_there ? (c * ATTN_PARTS + (i == 0 ? 1 : 0)) * ATTN_MAX_ROWS + at : -1;
    }
    return n_parts;
}

/* Of the lanes that differ in the bits of `step` and above. */
static __device__ __forceinline__ attn_sum attn_add_lanes(attn_sum s, int step)
{
#pragma unroll 1
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

/* Waits for the launch ahead: the parts are its. */
template <int D>
static __device__ __forceinline__ void
attn_add_parts(const attn_job &job, const attn_adder &a, int n_parts, int thread,
               const attn_places &places, attn_row_sums<D> &sums)
{
    constexpr int kBatch = 5; /* parts that a thread asks for at once */
    attn_sum sum = attn_no_sum();
    for (int p = a.group; p < n_parts; p += kBatch * a.n_groups) {
        int from[kBatch];
        attn_sum parts[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            const int at = p + i * a.n_groups;
            from[i] = at < n_parts ? places[at] : -1;
        }
        ptx_wait_for_launch_before();
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            parts[i] = attn_no_sum();
            if (from[i] >= 0) {
                const float2 ml = __ldcg(job.part_ml + from[i]);
                parts[i].o = __ldcg((const float4 *)job.part_o + from[i] * (D / 4) + a.at_vector);
                parts[i].m = ml.x;
                parts[i].l = ml.y;
            }
        }
        const attn_sum both[2] = {sum, attn_add(parts)};
        sum = attn_add(both);
    }
    sum = attn_add_lanes(sum, a.n_vectors);
    if (thread % 32 < a.n_vectors) {
        sums[thread / 32][a.vector] = sum;
    }
}

template <int D>
static __device__ __forceinline__ attn_sum attn_add_warps(const attn_row_sums<D> &sums, int vector)
{
    attn_sum all[ATTN_ADDER_WARPS];
#pragma unroll
    for (int i = 0; i < ATTN_ADDER_WARPS; i++) {
        all[i] = sums[i][vector];
    }
    return attn_add(all);
}

/* ---- slices of a row, in a cluster ---- */

/* All threads of a cluster. */
static __device__ __forceinline__ void attn_meet()
{
    asm volatile("barrier.cluster.arrive.release.aligned;\n"
                 "barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

/* x to the place of `own` in the cluster's first CTA. */
static __device__ __forceinline__ void attn_put_first(float4 *own, float4 x)
{
    uint32_t to;
    asm("mapa.shared::cluster.u32 %0,%1,0;" : "=r"(to) : "r"(ptx_shared(own)));
    asm volatile("st.shared::cluster.v4.f32 [%0],{%1,%2,%3,%4};" ::"r"(to), "f"(x.x), "f"(x.y),
                 "f"(x.z), "f"(x.w)
                 : "memory");
}

/* Begins while the launch ahead runs; its slices are a cluster. */
template <class Job>
static inline cudaError_t attn_launch_slices(void (*kernel)(Job), dim3 grid, int n_threads,
                                             bool is_cluster, cudaStream_t stream, const Job &job)
{
    const cudaError_t error = cuda_wants_shared(kernel);
    if (error != cudaSuccess) {
        return error;
    }
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = 1;
    attributes[1].val.clusterDim.y = 1;
    attributes[1].val.clusterDim.z = grid.z;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)n_threads);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = is_cluster && grid.z > 1 ? 2 : 1;
    return cudaLaunchKernelEx(&config, kernel, job);
}

#endif /* KERNELS_CUDA_ATTN_PARTS_CUH */
