#include "kernels/cuda/exchange_peers.h"

#include "base/log.h"
#include "kernels/cuda/cuda_check.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MEET_MS     20000 /* all ranks have come so far, or will not */
#define FAREWELL_MS 2000
#define MAX_HOST    64
#define MAX_REASON  192

struct cuda_exchange {
    cuda_exchange_port port;
    comm *host;
    base_alloc mem;
    uint32_t *report; /* page-locked; kernels reach it as port.report */
};

/* What a rank tells the others. */
typedef struct card {
    char host[MAX_HOST];
    cuda_exchange_shape shape;
    cudaIpcMemHandle_t window;
    char reason[MAX_REASON]; /* why the rank cannot take part; "": it can */
} card;

static void note(card *mine, base_status st)
{
    if (st != BASE_OK && mine->reason[0] == '\0') {
        (void)snprintf(mine->reason, sizeof mine->reason, "%s", base_last_error());
    }
}

static base_status make_window(cuda_exchange *x, void *stream, int64_t limit_ms, card *mine)
{
    base_status st = BASE_OK;
    cuda_exchange_port *port = &x->port;
    const int64_t n_bytes = cuda_exchange_window_bytes(&port->shape);
    void *window = NULL;
    void *report = NULL;

    if (port->shape.n_ranks > CUDA_EXCHANGE_MAX_RANKS ||
        (port->shape.head_dim != 64 && port->shape.head_dim != 128)) {
        return BASE_FAIL(BASE_UNAVAILABLE, "%d ranks, head dim %d; at most %d, 64 or 128",
                         port->shape.n_ranks, port->shape.head_dim, CUDA_EXCHANGE_MAX_RANKS);
    }
    BASE_TRY(st, out, cuda_to_status(cudaMalloc(&window, (size_t)n_bytes), "window"));
    port->windows[port->rank] = window;
    BASE_TRY(
        st, out,
        cuda_to_status(cudaHostAlloc(&report, sizeof *x->report, cudaHostAllocMapped), "report"));
    x->report = report;
    *x->report = 0;
    BASE_TRY(st, out,
             cuda_to_status(cudaHostGetDevicePointer((void **)&port->report, report, 0), "report"));
    BASE_TRY(st, out, cuda_exchange_clear(stream, &port->shape, window));
    BASE_TRY(st, out, cuda_exchange_limit(stream, port, limit_ms * 1000));
    BASE_TRY(st, out, cuda_to_status(cudaStreamSynchronize(stream), "window"));
    st = cuda_to_status(cudaIpcGetMemHandle(&mine->window, window), "sharing memory");
out:
    return st;
}

static base_status map_windows(cuda_exchange *x, const card *cards)
{
    base_status st = BASE_OK;
    cuda_exchange_port *port = &x->port;
    for (int32_t r = 0; r < port->shape.n_ranks; r++) {
        void *at = NULL;
        if (r == port->rank) {
            continue;
        }
        if (strcmp(cards[r].host, cards[port->rank].host) != 0) {
            return BASE_FAIL(BASE_UNAVAILABLE, "rank %d is on %s, this one on %s", r, cards[r].host,
                             cards[port->rank].host);
        }
        if (memcmp(&cards[r].shape, &port->shape, sizeof port->shape) != 0) {
            return BASE_FAIL(BASE_UNAVAILABLE, "rank %d has a window of another shape", r);
        }
        BASE_TRY(st, out,
                 cuda_to_status(
                     cudaIpcOpenMemHandle(&at, cards[r].window, cudaIpcMemLazyEnablePeerAccess),
                     "reaching a peer's memory"));
        port->windows[r] = at;
    }
out:
    return st;
}

/* Every rank's card to all.  Errors: UNAVAILABLE for the first that cannot take part, PEER_LOST. */
static base_status show(const cuda_exchange *x, const card *mine, card *cards)
{
    base_status st = BASE_OK;
    BASE_TRY(st, out, comm_all_gather(x->host, mine, cards, sizeof *mine, MEET_MS));
    for (int32_t r = 0; r < x->port.shape.n_ranks; r++) {
        if (cards[r].reason[0] != '\0') {
            return BASE_FAIL(BASE_UNAVAILABLE, "rank %d: %s", r, cards[r].reason);
        }
    }
out:
    return st;
}

static void unmap(cuda_exchange *x)
{
    for (int32_t r = 0; r < x->port.shape.n_ranks; r++) {
        if (r != x->port.rank && x->port.windows[r] != NULL) {
            (void)cudaIpcCloseMemHandle(x->port.windows[r]);
        }
    }
}

void cuda_exchange_close(cuda_exchange *x)
{
    if (x == NULL) {
        return;
    }
    const base_alloc mem = x->mem;
    char mine = 0;
    char all[CUDA_EXCHANGE_MAX_RANKS];

    unmap(x); /* before any window ends */
    if (x->port.shape.n_ranks <= CUDA_EXCHANGE_MAX_RANKS &&
        comm_all_gather(x->host, &mine, all, sizeof mine, FAREWELL_MS) == BASE_OK) {
        (void)cudaFree(x->port.windows[x->port.rank]);
    }
    (void)cudaFreeHost(x->report);
    mem.put(mem.ctx, x);
}

base_status cuda_exchange_open(const cuda_exchange_options *options, const base_alloc *mem,
                               cuda_exchange **x_out)
{
    base_status st = BASE_OK;
    const int32_t n = comm_size(options->host);
    cuda_exchange *x = mem->get(mem->ctx, sizeof *x);
    card *cards = mem->get(mem->ctx, (size_t)n * sizeof *cards);
    card mine = {.host = ""};

    if (x == NULL || cards == NULL) {
        mem->put(mem->ctx, x);
        mem->put(mem->ctx, cards);
        return BASE_FAIL(BASE_NO_MEMORY, "exchange of %d ranks", n);
    }
    *x = (cuda_exchange){.host = options->host, .mem = *mem};
    x->port = (cuda_exchange_port){.shape = options->shape, .rank = comm_rank(options->host)};
    x->port.shape.n_ranks = n;
    mine.shape = x->port.shape;
    (void)gethostname(mine.host, sizeof mine.host - 1);
    note(&mine, make_window(x, options->stream, options->limit_ms, &mine));
    BASE_TRY(st, out, show(x, &mine, cards));
    note(&mine, map_windows(x, cards));
    BASE_TRY(st, out, show(x, &mine, cards));
    *x_out = x;
    x = NULL;

out:
    mem->put(mem->ctx, cards);
    cuda_exchange_close(x);
    return st;
}

const cuda_exchange_port *cuda_exchange_port_of(const cuda_exchange *x)
{
    return &x->port;
}

base_status cuda_exchange_check(const cuda_exchange *x)
{
    const uint32_t word = *(const volatile uint32_t *)x->report;
    return word == 0 ? BASE_OK
                     : BASE_FAIL(BASE_PEER_LOST, "exchange: nothing came from rank %u in time",
                                 word & ~CUDA_EXCHANGE_LOST);
}
