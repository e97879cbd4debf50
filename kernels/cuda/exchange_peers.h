/* kernels/cuda/exchange_peers.h - ports of exchange.h between processes of one host, one a rank: each makes a window, and
 * maps those of the others (CUDA IPC).
 *
 * Threads.  The one that calls the comm, but for cuda_exchange_check. */
#ifndef KERNELS_CUDA_EXCHANGE_PEERS_H
#define KERNELS_CUDA_EXCHANGE_PEERS_H

#include "base/alloc.h"
#include "kernels/comm/comm.h"
#include "kernels/cuda/exchange.h"

typedef struct cuda_exchange cuda_exchange;

typedef struct cuda_exchange_options {
    void *stream;              /* a cudaStream_t: of all calls through the port */
    comm *host;                /* of the same ranks; borrowed, and ends later */
    cuda_exchange_shape shape; /* n_ranks is the comm's to say */
    int64_t limit_ms;          /* that a kernel waits for a peer, until cuda_exchange_limit */
} cuda_exchange_options;

/* Collective.  Errors, on every rank alike: UNAVAILABLE naming the first rank that cannot take part, and why; PEER_LOST. */
BASE_MUST_CHECK base_status cuda_exchange_open(const cuda_exchange_options *options,
                                               const base_alloc *mem, cuda_exchange **x_out);
/* Collective, once all calls have ended; a rank that waits in vain for the others keeps its window.  NULL is allowed. */
void cuda_exchange_close(cuda_exchange *x);

const cuda_exchange_port *cuda_exchange_port_of(const cuda_exchange *x);

/* Any thread, at any time.  Errors: PEER_LOST naming the rank that a kernel waited for in vain. */
BASE_MUST_CHECK base_status cuda_exchange_check(const cuda_exchange *x);

#endif /* KERNELS_CUDA_EXCHANGE_PEERS_H */
