#include "tests/soak/stall.h"

#include "kernels/cuda/cuda_check.h"

#include <stdint.h>

extern "C" {
#include "kernels/cuda/cuda_share.h"
}

static __device__ uint32_t n_stalls;

static __device__ uint64_t now_ns()
{
    uint64_t ns;
    asm volatile("mov.u64 %0,%globaltimer;" : "=l"(ns));
    return ns;
}

static __global__ void stall_at_random(uint32_t rank)
{
    uint32_t x = (n_stalls++ * 64 + rank + 1) * 0x9e3779b9u; /* mixed as murmur's end does */
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    x ^= x >> 16;
    if (x % 16 != 0) {
        return;
    }
    const uint64_t until = now_ns() + (x >> 4) % 3000000;
    while (now_ns() < until) {
    }
}

extern "C" base_status stall(kern_ctx *ctx, int rank)
{
    base_status st = BASE_OK;
    cudaStream_t stream = nullptr;
    BASE_TRY(st, out, cuda_share_stream(ctx, &stream));
    stall_at_random<<<1, 1, 0, stream>>>((uint32_t)rank);
    st = CUDA_LAUNCHED("stall");
out:
    return st;
}
