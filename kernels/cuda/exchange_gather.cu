/* Every rank's words to all.  They keep their bits, the mark's too, so they travel beside their turn. */
#include "kernels/cuda/exchange_line.cuh"

namespace {

using namespace exchange;

using wire = tagged_wire<kLineElems>;

struct gather_job : end { /* words as floats: bits that nothing is computed with */
    const float *mine;
    float *all;
    int32_t n_words; /* of a rank */
    int32_t n_lines;
    bool aligned; /* every rank's place, and mine, to 16 bytes */
};

template <int N>
__global__ void __launch_bounds__(kWarp *kLineMaxWarps, 2)
    gather_lines(const __grid_constant__ gather_job a)
{
    const int line = own_line();
    if (line >= a.n_lines) {
        return;
    }
    const int begin = line * CUDA_EXCHANGE_LINE;
    const int n_left = a.n_words - begin;
    line_end<wire, N, kTaggedLineBytes> ends(a, line);
    cuda_after_previous();

    const patience p = a.waiting();
    const uint32_t turn = wire::next(a.turns[line]);
    float own[kLineElems];
    load_line(a.mine + begin, n_left, a.aligned, own);
    ends.go_on(wire::buffer_of(turn) * a.buffer_bytes);
    ends.send(own, turn);
    float x[N][kLineElems];
    if (!ends.receive(p, turn, x)) {
        return;
    }
#pragma unroll
    for (int r = 0; r < N; r++) {
        if (r < a.n_ranks) {
            store_line(a.all + begin + (int64_t)r * a.n_words, n_left, a.aligned, x[r]);
        }
    }
    if (threadIdx.x % kWarp == 0) {
        a.turns[line] = turn;
    }
}

} // namespace

extern "C" base_status cuda_exchange_gather(void *stream, const cuda_exchange_port *port,
                                            const uint32_t *mine, uint32_t *all, int32_t n_words)
{
    const cuda_exchange_shape &shape = port->shape;
    const int32_t n = shape.n_ranks;
    const layout at = layout_of(shape);
    const uintptr_t bits = (uintptr_t)mine | (uintptr_t)all;

    if (n_words < 0 || n_words > shape.max_gather || shape.max_gather > CUDA_EXCHANGE_MAX_GATHER ||
        bits % 4 != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "gather of %d words, 4-byte aligned; made for %d", n_words,
                         shape.max_gather);
    }
    if (n_words == 0) {
        return BASE_OK;
    }
    gather_job j = {};
    static_cast<end &>(j) = end_of(*port, at, at.gathers);
    j.mine = reinterpret_cast<const float *>(mine);
    j.all = reinterpret_cast<float *>(all);
    j.n_words = n_words;
    j.n_lines = lines_of(n_words);
    j.aligned = (bits | (uintptr_t)n_words * sizeof *all) % 16 == 0;
    return launch_lines(n <= 2   ? gather_lines<2>
                        : n <= 4 ? gather_lines<4>
                                 : gather_lines<8>,
                        j.n_lines, static_cast<cudaStream_t>(stream), j);
}
