/* kernels/cuda/attn_combine.cuh - the second launch: a CTA merges the parts of one query row, if it has parts. */
#ifndef KERNELS_CUDA_ATTN_COMBINE_CUH
#define KERNELS_CUDA_ATTN_COMBINE_CUH

#include "kernels/cuda/attn_shared.cuh"

#define ATTN_COMBINE_THREADS 256
#define ATTN_MAX_CTAS        256
#define ATTN_LN2             0.6931471805599453f

/* One element of a result: o and l relative to m, base 2. */
static __device__ __forceinline__ void attn_write(const attn_job &job, int token, int head,
                                                  int head_dim, int dim, float o, float m, float l)
{
    const int64_t row = (int64_t)token * job.a.n_heads + head;
    job.a.o[row * head_dim + dim] = l == 0.0f ? 0.0f : o / l;
    if (dim == 0) {
        job.a.lse[row] = l == 0.0f ? -INFINITY : (m + log2f(l)) * ATTN_LN2;
    }
}

template <class C>
static __global__ void __launch_bounds__(ATTN_COMBINE_THREADS)
    attn_combine(const __grid_constant__ attn_job job)
{
    constexpr int kWarps = ATTN_COMBINE_THREADS / 32;
    constexpr int kVectors = C::D / 4;
    constexpr int kRows = ATTN_COMBINE_THREADS / kVectors; /* parts at a time */
    __shared__ int range[3];                               /* first and last CTA, row in tile */
    __shared__ float weight[ATTN_MAX_CTAS];
    __shared__ float warp_value[2][kWarps];
    __shared__ float4 sums[kRows][kVectors];
    const int tid = (int)threadIdx.x;
    const int token = (int)blockIdx.x;
    const int query_head = (int)blockIdx.y;
    attn_head head;
    uint32_t total = 0;
    ptx_let_next_launch_begin();
    if (tid < 32) {
        total = attn_total<C::D, C::R>(job);
        attn_find<C::D, C::R>(job, 0, token, query_head, &head);
        if (tid == 0) {
            const attn_shares shares(total, job.n_ctas);
            range[0] = (int)shares.owner(head.at);
            range[1] = (int)shares.owner(head.at + head.item_at(head.cost.n_pages));
            range[2] = ((token - head.seq.first_token) * job.group + query_head % job.group) % C::R;
        }
        const int n = (int)job.n_ctas;
        const attn_shares shares(total, n);
        const int c0 = (int)shares.owner(head.at);
        const int c1 = (int)shares.owner(head.at + head.item_at(head.cost.n_pages));
        for (int c = c0 + tid; c <= c1;
             c += 32) { /* a CTA may lie inside one page, and have no part */
            const bool empty = head.first_item(shares.begin((uint32_t)c)) ==
                               head.first_item(shares.begin((uint32_t)c + 1));
            weight[c - c0] = empty ? 0.0f : 1.0f;
        }
    }
    __syncthreads(); /* range and weight are here */
    const int first = range[0];
    const int n_parts = range[1] - first + 1;
    const int row = range[2];
    ptx_wait_for_launch_before(); /* or the launch after this one would not wait for it either */
    if (n_parts == 1) {
        return;
    }
    auto part_of = [&](int i) {
        return ((first + i) * ATTN_PARTS + (i == 0 ? 1 : 0)) * ATTN_MAX_ROWS + row;
    };

    float m = -INFINITY;
    float2 ml = make_float2(-INFINITY, 0.0f); /* of part tid */
    if (tid < n_parts && weight[tid] != 0.0f) {
        ml = __ldcg(&job.part_ml[part_of(tid)]);
        m = ml.x;
    }
    for (int step = 16; step > 0; step /= 2) {
        m = fmaxf(m, __shfl_xor_sync(~0u, m, step));
    }
    if (tid % 32 == 0) {
        warp_value[0][tid / 32] = m;
    }
    __syncthreads(); /* maxima are here */
    for (int w = 0; w < kWarps; w++) {
        m = fmaxf(m, warp_value[0][w]);
    }
    const float k = ml.x == -INFINITY ? 0.0f : ptx_exp2(ml.x - m);
    float l = k * ml.y;
    if (tid < n_parts) {
        weight[tid] = k;
    }
    for (int step = 16; step > 0; step /= 2) {
        l += __shfl_xor_sync(~0u, l, step);
    }
    if (tid % 32 == 0) {
        warp_value[1][tid / 32] = l;
    }
    __syncthreads(); /* weights and sums are here */
    l = 0.0f;
    for (int w = 0; w < kWarps; w++) {
        l += warp_value[1][w];
    }
    float4 o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (int i = tid / kVectors; i < n_parts; i += kRows) {
        const float part_weight = weight[i];
        if (part_weight != 0.0f) {
            const float4 v =
                __ldcg((const float4 *)(job.part_o + (int64_t)part_of(i) * C::D) + tid % kVectors);
            o.x = fmaf(part_weight, v.x, o.x);
            o.y = fmaf(part_weight, v.y, o.y);
            o.z = fmaf(part_weight, v.z, o.z);
            o.w = fmaf(part_weight, v.w, o.w);
        }
    }
    sums[tid / kVectors][tid % kVectors] = o;
    __syncthreads(); /* sums of every eighth part are here */
    if (tid < C::D) {
        float sum = 0.0f;
        for (int r = 0; r < kRows; r++) {
            sum += ((const float *)sums[r])[tid];
        }
        attn_write(job, token, query_head, C::D, tid, sum, m, l);
    }
}

#endif /* KERNELS_CUDA_ATTN_COMBINE_CUH */
