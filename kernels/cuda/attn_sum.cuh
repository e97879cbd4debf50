/* kernels/cuda/attn_sum.cuh - sums over V of parts of a head, and what becomes of them. */
#ifndef KERNELS_CUDA_ATTN_SUM_CUH
#define KERNELS_CUDA_ATTN_SUM_CUH

#include "kernels/cuda/attn_shared.cuh"

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

/* The result: 0 and -inf where there is nothing. */
static __device__ __forceinline__ float4 attn_mean(const attn_sum &s)
{
    const float k = 1.0f / s.l;
    return s.l == 0.0f ? make_float4(0.0f, 0.0f, 0.0f, 0.0f)
                       : make_float4(s.o.x * k, s.o.y * k, s.o.z * k, s.o.w * k);
}

static __device__ __forceinline__ float attn_lse(const attn_sum &s)
{
    return s.l == 0.0f ? -INFINITY : (s.m + log2f(s.l)) * ATTN_LN2;
}

#endif /* KERNELS_CUDA_ATTN_SUM_CUH */
