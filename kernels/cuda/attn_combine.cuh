/* kernels/cuda/attn_combine.cuh - the second launch: a CTA merges the parts of some dims of one query row, if it has parts. */
#ifndef KERNELS_CUDA_ATTN_COMBINE_CUH
#define KERNELS_CUDA_ATTN_COMBINE_CUH

#include "kernels/cuda/attn_shared.cuh"

#define ATTN_COMBINE_WARPS \
    4 /* few enough to be there while decode CTAs still have their registers */
#define ATTN_LN2 0.6931471805599453f

/* Four dims of a row: sums o over V, and l of the weights, relative to the maximum m, base 2. */
struct attn_sum {
    float4 o;
    float m;
    float l;
};

static __device__ __forceinline__ attn_sum attn_no_sum()
{
    return {make_float4(0.0f, 0.0f, 0.0f, 0.0f), -INFINITY, 0.0f};
}

template <int N>
static __device__ __forceinline__ attn_sum attn_add(const attn_sum (&x)[N])
{
    attn_sum s = attn_no_sum();
#pragma unroll
    for (int i = 0; i < N; i++) {
        s.m = fmaxf(s.m, x[i].m);
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float k = x[i].m == -INFINITY ? 0.0f : ptx_exp2(x[i].m - s.m);
        s.l = fmaf(k, x[i].l, s.l);
        s.o.x = fmaf(k, x[i].o.x, s.o.x);
        s.o.y = fmaf(k, x[i].o.y, s.o.y);
        s.o.z = fmaf(k, x[i].o.z, s.o.z);
        s.o.w = fmaf(k, x[i].o.w, s.o.w);
    }
    return s;
}

/* Dims 4 vector .. 4 vector + 3 of a result. */
template <int D>
static __device__ void attn_write(const attn_job &job, int token, int head, int vector,
                                  const attn_sum &s)
{
    const int64_t row = (int64_t)token * job.a.n_heads + head;
    const float k = s.l == 0.0f ? 0.0f : 1.0f / s.l;
    const bool none = s.l == 0.0f;
    ((float4 *)job.a.o)[row * (D / 4) + vector] =
        none ? make_float4(0.0f, 0.0f, 0.0f, 0.0f)
             : make_float4(s.o.x * k, s.o.y * k, s.o.z * k, s.o.w * k);
    if (vector == 0) {
        job.a.lse[row] = none ? -INFINITY : (s.m + log2f(s.l)) * ATTN_LN2;
    }
}

/* Of the lanes that differ in the bits of `step` and above. */
static __device__ __forceinline__ attn_sum attn_add_lanes(attn_sum s, int step)
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

/* Grid: token, query head, slice of its dims. */
template <class C>
static __global__ void __launch_bounds__(ATTN_COMBINE_WARPS * 32)
    attn_combine(const __grid_constant__ attn_job job)
{
    constexpr int kBatch = 5; /* parts that a thread asks for at once */
    __shared__ attn_head head;
    __shared__ uint32_t total;
    __shared__ attn_sum sums[ATTN_COMBINE_WARPS][C::D / 4];
    const int n_vectors = C::D / 4 / (int)gridDim.z;  /* 8, 16 or 32 */
    const int n_groups = (int)blockDim.x / n_vectors; /* each adds every n_groups-th part */
    const int group = (int)threadIdx.x / n_vectors;
    const int vector = (int)threadIdx.x % n_vectors;
    const int at_vector = (int)blockIdx.z * n_vectors + vector;
    const int token = (int)blockIdx.x;
    const int query_head = (int)blockIdx.y;
    ptx_let_next_launch_begin();
    if (threadIdx.x < 32) {
        const uint32_t sum = attn_total<C::D, C::R>(job);
        attn_head found;
        attn_find<C::D, C::R>(job, 0, token, query_head, &found);
        if (threadIdx.x == 0) {
            total = sum;
            head = found;
        }
    }
    __syncthreads(); /* the head is here */
    const attn_shares shares(total, job.n_ctas);
    const int first = (int)shares.owner(head.at);
    const int last = (int)shares.owner(head.at + head.item_at(head.cost.n_pages));
    const int row = ((token - head.seq.first_token) * job.group + query_head % job.group) % C::R;
    if (first == last) {
        ptx_wait_for_launch_before(); /* who waits for this launch waits for the one before, too */
        return;
    }

    attn_sum sum = attn_no_sum();
    for (int c0 = first + group; c0 <= last; c0 += kBatch * n_groups) {
        int from[kBatch];
        attn_sum parts[kBatch];
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            const int c = c0 + i * n_groups;
            /* a CTA may lie inside one page, and have no part */
            const bool is_there = c <= last && head.first_item(shares.begin((uint32_t)c)) !=
                                                   head.first_item(shares.begin((uint32_t)c + 1));
            from[i] = is_there ? (c * ATTN_PARTS + (c == first ? 1 : 0)) * ATTN_MAX_ROWS + row : -1;
        }
        ptx_wait_for_launch_before();
#pragma unroll
        for (int i = 0; i < kBatch; i++) {
            parts[i] = attn_no_sum();
            if (from[i] >= 0) {
                const float2 ml = __ldcg(job.part_ml + from[i]);
                parts[i].o = __ldcg((const float4 *)job.part_o + from[i] * (C::D / 4) + at_vector);
                parts[i].m = ml.x;
                parts[i].l = ml.y;
            }
        }
        const attn_sum both[2] = {sum, attn_add(parts)};
        sum = attn_add(both);
    }
    sum = attn_add_lanes(sum, n_vectors);
    if (threadIdx.x % 32 < n_vectors) {
        sums[threadIdx.x / 32][vector] = sum;
    }
    __syncthreads(); /* the warps' sums are here */
    if (threadIdx.x < n_vectors) {
        attn_sum all[ATTN_COMBINE_WARPS];
#pragma unroll
        for (int i = 0; i < ATTN_COMBINE_WARPS; i++) {
            all[i] = sums[i][vector];
        }
        attn_write<C::D>(job, token, query_head, at_vector, attn_add(all));
    }
}

#endif /* KERNELS_CUDA_ATTN_COMBINE_CUH */
