/* Windows: how they are divided, made ready, and told how long to wait. */
#include "kernels/cuda/exchange_window.cuh"

#include "kernels/cuda/cuda_check.h"
#include "kernels/cuda/cuda_launch.h"

namespace exchange {

static int64_t take(int64_t *n_bytes, int64_t wanted)
{
    const int64_t at = *n_bytes;
    *n_bytes += (wanted + 127) / 128 * 128;
    return at;
}

static place take_place(int64_t *n_bytes, int32_t n_ranks, int32_t n_buffers, int32_t max_units,
                        int32_t unit_bytes)
{
    place p = {};
    p.n_buffers = n_buffers;
    p.max_units = max_units;
    p.unit_bytes = unit_bytes;
    p.n_bytes = (int64_t)n_buffers * n_ranks * max_units * unit_bytes;
    p.buffers = take(n_bytes, p.n_bytes);
    p.turns = take(n_bytes, (int64_t)max_units * (int64_t)sizeof(uint32_t));
    return p;
}

layout layout_of(const cuda_exchange_shape &s)
{
    layout at = {};
    at.words = take_place(&at.n_bytes, s.n_ranks, kWordBuffers, s.max_words, kWordBytes);
    at.quick_rows = take_place(&at.n_bytes, s.n_ranks, tagged_wire<2>::kBuffers,
                               CUDA_EXCHANGE_QUICK_ROWS, row_bytes<tagged_wire>(s.head_dim));
    at.rows = take_place(&at.n_bytes, s.n_ranks, marked_wire<2>::kBuffers, s.max_rows,
                         row_bytes<marked_wire>(s.head_dim));
    const int n_lines = lines_of(s.max_sum);
    const int n_whole = n_lines < one_shot_lines(s.n_ranks) ? n_lines : one_shot_lines(s.n_ranks);
    const int n_shares = n_lines > n_whole ? (n_lines + s.n_ranks - 1) / s.n_ranks : 0;
    at.lines = take_place(&at.n_bytes, s.n_ranks, marked_wire<2>::kBuffers, n_whole, kLineBytes);
    at.shares =
        take_place(&at.n_bytes, s.n_ranks, marked_wire<2>::kBuffers, n_shares, 2 * kLineBytes);
    at.gathers = take_place(&at.n_bytes, s.n_ranks, tagged_wire<2>::kBuffers,
                            lines_of(s.max_gather), kTaggedLineBytes);
    at.waits = take(&at.n_bytes, sizeof(waits));
    return at;
}

end end_of(const cuda_exchange_port &port, const layout &at, const place &p)
{
    end e = {};
    char *own = port.windows[port.rank];
    for (int r = 0; r < port.shape.n_ranks; r++) {
        e.windows[r] = port.windows[r] + p.buffers;
    }
    e.turns = reinterpret_cast<uint32_t *>(own + p.turns);
    e.own_waits = reinterpret_cast<waits *>(own + at.waits);
    e.report = port.report;
    e.buffer_bytes = (uint32_t)(p.n_bytes / p.n_buffers);
    e.max_units = p.max_units;
    e.rank = port.rank;
    e.n_ranks = port.shape.n_ranks;
    return e;
}

static __global__ void set_limit(waits *w, uint32_t limit)
{
    cuda_after_previous();
    w->limit = limit;
}

} // namespace exchange

using namespace exchange;

extern "C" int64_t cuda_exchange_window_bytes(const cuda_exchange_shape *shape)
{
    return layout_of(*shape).n_bytes;
}

extern "C" base_status cuda_exchange_clear(void *stream, const cuda_exchange_shape *shape,
                                           char *window)
{
    base_status st = BASE_OK;
    const auto s = static_cast<cudaStream_t>(stream);
    const layout at = layout_of(*shape);
    const place *const marked[] = {&at.rows, &at.lines, &at.shares};

    BASE_TRY(st, out, cuda_to_status(cudaMemsetAsync(window, 0, (size_t)at.n_bytes, s), "window"));
    for (const place *p : marked) {
        const auto n_bytes = static_cast<size_t>(p->n_bytes);
        BASE_TRY(st, out,
                 cuda_to_status(cudaMemsetAsync(window + p->buffers, 0xff, n_bytes, s), "window"));
    }
out:
    return st;
}

extern "C" base_status cuda_exchange_limit(void *stream, const cuda_exchange_port *port,
                                           int64_t limit_us)
{
    char *own = port->windows[port->rank];
    const layout at = layout_of(port->shape);
    if (limit_us < 2 || limit_us > UINT32_MAX) {
        return BASE_FAIL(BASE_BAD_INPUT, "exchange: a limit of %lld us", (long long)limit_us);
    }
    cuda_launch(set_limit, dim3(1), 1, static_cast<cudaStream_t>(stream),
                reinterpret_cast<waits *>(own + at.waits),
                (uint32_t)(limit_us * 1000 >> kTickShift));
    return CUDA_LAUNCHED("exchange's limit");
}
