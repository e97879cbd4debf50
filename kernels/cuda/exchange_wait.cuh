/* kernels/cuda/exchange_wait.cuh - how long a warp waits for words of a peer, and how all waits end once one was in vain. */
#ifndef KERNELS_CUDA_EXCHANGE_WAIT_CUH
#define KERNELS_CUDA_EXCHANGE_WAIT_CUH

#include "kernels/cuda/exchange_wire.cuh"

namespace exchange {

constexpr int kTickShift = 10; /* ticks of 1024 ns, that count for an hour and more in 32 bits */

struct waits {      /* in the window of the rank that waits */
    uint32_t lost;  /* not 0: a wait was in vain */
    uint32_t limit; /* of a wait, in ticks; an op of the stream writes it */
};

__device__ __forceinline__ uint32_t load_lost(const waits *w)
{
    uint32_t x;
    asm volatile("ld.relaxed.gpu.global.u32 %0,[%1];" : "=r"(x) : "l"(&w->lost) : "memory");
    return x;
}

/* Of one warp.  was_lost: what `lost` said when the kernel began; loaded then, it costs a poll that succeeds no time. */
struct patience {
    waits *w;
    uint32_t *report;
    uint32_t was_lost;
    uint32_t n_polls;
    uint32_t begun; /* ticks; 0: not yet */

    static __device__ __forceinline__ uint32_t ticks()
    {
        uint64_t ns;
        asm volatile("mov.u64 %0,%globaltimer;" : "=l"(ns));
        return (uint32_t)(ns >> kTickShift);
    }

    /* False: give up.  The first of all warps that has waited too long for a peer says for whom. */
    __device__ __forceinline__ bool lasts(int missing)
    {
        constexpr uint32_t kPollsPerLook = 256;
        if (was_lost != 0) {
            return false;
        }
        if (++n_polls % kPollsPerLook != 0) {
            return true;
        }
        const uint32_t now = ticks();
        begun = begun == 0 ? now : begun;
        if (load_lost(w) != 0) {
            return false;
        }
        if (now - begun < w->limit) {
            return true;
        }
        if (atomicExch(&w->lost, 1u) == 0) {
            store_word((char *)report, CUDA_EXCHANGE_LOST | (uint32_t)missing);
        }
        return false;
    }
};

} // namespace exchange

#endif /* KERNELS_CUDA_EXCHANGE_WAIT_CUH */
