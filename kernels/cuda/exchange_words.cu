/* Words of one rank to all: those of the new tokens. */
#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"
#include "kernels/cuda/exchange_window.cuh"

namespace {

using namespace exchange;

constexpr int kMaxThreads = 256; /* a CTA */

struct words_job : end {
    uint32_t *words;
    int32_t n_words;
    int32_t root;
};

/* A thread a word.  All ranks send, so that nobody runs ahead of a peer that has not read yet; root's words count. */
__global__ void __launch_bounds__(kMaxThreads) broadcast_words(const __grid_constant__ words_job a)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    cuda_after_previous();
    if (i >= a.n_words) {
        return;
    }
    patience p = a.waiting();
    const uint32_t turn = a.turns[i] + 1;
    const uint32_t own = a.words[i];
    const uint32_t buffer = turn % kWordBuffers * a.buffer_bytes;
    uint32_t word = own;
    for (int k = 1; k < a.n_ranks; k++) {
        const int to = a.after(k);
        store_long(a.unit(to, a.rank, i, kWordBytes) + buffer, (uint64_t)turn << 32 | own);
    }
    for (int k = 1; k < a.n_ranks; k++) {
        const int from = a.after(k);
        const char *slot = a.unit(a.rank, from, i, kWordBytes) + buffer;
        uint64_t seen = load_long(slot);
        while ((uint32_t)(seen >> 32) != turn) {
            if (!p.lasts(from)) {
                return;
            }
            seen = load_long(slot);
        }
        word = from == a.root ? (uint32_t)seen : word;
    }
    a.words[i] = word;
    a.turns[i] = turn;
}

} // namespace

extern "C" base_status cuda_exchange_broadcast(void *stream, const cuda_exchange_port *port,
                                               uint32_t *words, int32_t n_words, int32_t root)
{
    const cuda_exchange_shape &shape = port->shape;
    if (n_words < 0 || n_words > shape.max_words || root < 0 || root >= shape.n_ranks) {
        return BASE_FAIL(BASE_BAD_INPUT, "broadcast of %d words from rank %d; made for %d words",
                         n_words, root, shape.max_words);
    }
    if (n_words == 0) {
        return BASE_OK;
    }
    const layout at = layout_of(shape);
    words_job j = {};
    static_cast<end &>(j) = end_of(*port, at, at.words);
    j.words = words;
    j.n_words = n_words;
    j.root = root;
    const int n_threads =
        n_words < kMaxThreads ? kWarp * ((n_words + kWarp - 1) / kWarp) : kMaxThreads;
    cuda_launch(broadcast_words, dim3((n_words + n_threads - 1) / n_threads), n_threads,
                static_cast<cudaStream_t>(stream), j);
    return CUDA_LAUNCHED("broadcast");
}
