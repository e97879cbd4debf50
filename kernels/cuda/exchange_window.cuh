/* kernels/cuda/exchange_window.cuh - where things lie in a window (exchange.h), and what a kernel knows of its windows. */
#ifndef KERNELS_CUDA_EXCHANGE_WINDOW_CUH
#define KERNELS_CUDA_EXCHANGE_WINDOW_CUH

#include "kernels/cuda/exchange_wait.cuh"

namespace exchange {

/* Buffers of units (rows, or words), in each of which every rank has a place for max_units; and the turns of units. */
struct place {
    int64_t buffers, turns; /* bytes from the window's begin */
    int64_t n_bytes;        /* of all buffers */
    int32_t n_buffers, max_units, unit_bytes;
};

struct layout {
    place words, quick_rows, rows;
    place lines, shares; /* of sums in one crossing, and in two */
    place gathers;
    int64_t waits;
    int64_t n_bytes;
};

layout layout_of(const cuda_exchange_shape &shape);

constexpr int kLineBytes = marked_wire<CUDA_EXCHANGE_LINE / kWarp>::kLsePlace;
constexpr int kTaggedLineBytes = tagged_wire<CUDA_EXCHANGE_LINE / kWarp>::kLsePlace;

constexpr int lines_of(int32_t n_words)
{
    return (n_words + CUDA_EXCHANGE_LINE - 1) / CUDA_EXCHANGE_LINE;
}

/* Lines of a sum that go to every peer whole: beyond that a second crossing takes less time than the bytes that it saves. */
constexpr int one_shot_lines(int32_t n_ranks)
{
    constexpr int kSent = 1024; /* by a rank */
    return n_ranks > 1 ? kSent / (n_ranks - 1) : CUDA_EXCHANGE_MAX_ROWS;
}

/* One rank's end of the exchanges at a place. */
struct end {
    char *windows[CUDA_EXCHANGE_MAX_RANKS]; /* where the buffers begin */
    uint32_t *turns;                        /* of each unit */
    waits *own_waits;
    uint32_t *report;
    uint32_t buffer_bytes;
    int32_t max_units;
    int32_t rank, n_ranks;

    __device__ __forceinline__ patience waiting() const
    {
        return {own_waits, report, load_lost(own_waits), 0, 0};
    }
    /* Unit i, as `from` sends it, in the first buffer of the window of `at`. */
    __device__ __forceinline__ char *unit(int at, int from, int i, int unit_bytes) const
    {
        return windows[at] + ((int64_t)from * max_units + i) * unit_bytes;
    }
    __device__ __forceinline__ int after(int k) const /* the k-th rank after this one */
    {
        return rank + k < n_ranks ? rank + k : rank + k - n_ranks;
    }
};

end end_of(const cuda_exchange_port &port, const layout &at, const place &p);

} // namespace exchange

#endif /* KERNELS_CUDA_EXCHANGE_WINDOW_CUH */
