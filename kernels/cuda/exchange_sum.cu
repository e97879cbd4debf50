/* Sums over ranks, added in rank order.  A warp has a line: it sends its own to all peers, polls for theirs, and adds up
 * what has come.  Of many lines a rank adds a share up alone, and sends the sums: two crossings, fewer bytes. */
#include "kernels/cuda/exchange_line.cuh"

namespace {

using namespace exchange;

using wire = marked_wire<kLineElems>;

struct sum_job : end {
    float *x;
    int32_t n;
    int32_t n_lines; /* or shares, of a line for each rank */

    __device__ __forceinline__ int left(int line) const
    {
        return n - line * CUDA_EXCHANGE_LINE;
    }
    __device__ __forceinline__ float *at(int line) const
    {
        return x + (int64_t)line * CUDA_EXCHANGE_LINE;
    }
};

template <int N>
__device__ __forceinline__ void add_up(int n_ranks, const float (&x)[N][kLineElems],
                                       float (&sum)[kLineElems])
{
#pragma unroll
    for (int r = 0; r < N; r++) {
#pragma unroll
        for (int e = 0; e < kLineElems; e++) {
            sum[e] = r == 0 ? x[0][e] : r < n_ranks ? sum[e] + x[r][e] : sum[e];
        }
    }
}

template <int N>
__global__ void __launch_bounds__(kWarp *kLineMaxWarps, 2)
    sum_lines(const __grid_constant__ sum_job a)
{
    const int line = own_line();
    if (line >= a.n_lines) {
        return;
    }
    line_end<wire, N, kLineBytes> ends(a, line);
    cuda_after_previous();

    const patience p = a.waiting();
    const uint32_t turn = wire::next(a.turns[line]);
    float own[kLineElems];
    load_line(a.at(line), a.left(line), true, own);
    ends.go_on(wire::buffer_of(turn) * a.buffer_bytes);
    ends.send(own, turn);
    float x[N][kLineElems];
    if (!ends.receive(p, turn, x)) {
        return;
    }
    float sum[kLineElems];
    add_up(a.n_ranks, x, sum);
    store_line(a.at(line), a.left(line), true, sum);
    if (threadIdx.x % kWarp == 0) {
        a.turns[line] = turn;
    }
}

/* Lines N share .. N share + N - 1: rank r adds up the r-th. */
template <int N>
__global__ void __launch_bounds__(kWarp *kLineMaxWarps, 2)
    sum_shares(const __grid_constant__ sum_job a)
{
    const int lane = threadIdx.x % kWarp;
    const int share = own_line();
    if (share >= a.n_lines) {
        return;
    }
    const int first = share * a.n_ranks;
    line_end<wire, N, 2 * kLineBytes> ends(a, share);
    cuda_after_previous();

    const patience p = a.waiting();
    const uint32_t turn = wire::next(a.turns[share]);
    float x[N][kLineElems];
#pragma unroll
    for (int k = 0; k < N; k++) {
        if (k < a.n_ranks) {
            const int line = first + (k + 1 < a.n_ranks ? a.after(k + 1) : a.rank);
            load_line(a.at(line), a.left(line), true, x[k]);
        }
    }
    ends.go_on(wire::buffer_of(turn) * a.buffer_bytes);
#pragma unroll
    for (int k = 0; k < N; k++) {
        if (k < a.n_ranks) {
            wire::put(ends.to[k], lane, x[k], turn);
        }
    }
    if (!ends.receive(p, turn, x)) {
        return;
    }
    float sum[kLineElems];
    add_up(a.n_ranks, x, sum);
    ends.go_on(kLineBytes);
    ends.send(sum, turn);
    if (!ends.receive(p, turn, x)) {
        return;
    }
#pragma unroll
    for (int r = 0; r < N; r++) {
        if (r < a.n_ranks) {
            store_line(a.at(first + r), a.left(first + r), true, x[r]);
        }
    }
    if (lane == 0) {
        a.turns[share] = turn;
    }
}

} // namespace

extern "C" base_status cuda_exchange_sum(void *stream, const cuda_exchange_port *port, float *x,
                                         int32_t n)
{
    const cuda_exchange_shape &shape = port->shape;
    const int32_t n_ranks = shape.n_ranks;
    const auto s = static_cast<cudaStream_t>(stream);
    const layout at = layout_of(shape);

    if (n < 0 || n > shape.max_sum || shape.max_sum > CUDA_EXCHANGE_MAX_SUM ||
        (uintptr_t)x % 16 != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "sum of %d elements, 16-byte aligned; made for %d", n,
                         shape.max_sum);
    }
    if (n == 0) {
        return BASE_OK;
    }
    sum_job j = {};
    j.n_lines = lines_of(n);
    const bool one_shot = j.n_lines <= one_shot_lines(n_ranks);
    static_cast<end &>(j) = end_of(*port, at, one_shot ? at.lines : at.shares);
    j.x = x;
    j.n = n;
    if (one_shot) {
        return launch_lines(n_ranks <= 2   ? sum_lines<2>
                            : n_ranks <= 4 ? sum_lines<4>
                                           : sum_lines<8>,
                            j.n_lines, s, j);
    }
    j.n_lines = (j.n_lines + n_ranks - 1) / n_ranks;
    return launch_lines(n_ranks <= 2   ? sum_shares<2>
                        : n_ranks <= 4 ? sum_shares<4>
                                       : sum_shares<8>,
                        j.n_lines, s, j);
}
