/* kernels/cuda/exchange.h - partials of GPUs that reach each other's memory, brought together and merged in one launch.
 *
 * Every rank has a window: device memory that all ranks store into.  A kernel stores this rank's rows into the windows
 * of its peers, waits for theirs in its own, and merges in rank order with the arithmetic of op_merge.h: the bits of
 * kern_merge on what an all-gather would have brought.  Why no word is read too early or lost: docs/merge.md.
 *
 *   window   [2][N][max_words] words, each beside its epoch                     broadcast
 *            [2][N][QUICK_ROWS][D + 2] words, each beside its epoch             merge of up to QUICK_ROWS rows
 *            [3][N][max_rows][D + 4] words, or a mark where none has come yet   merge of more
 *            beside each, how often every word or row was exchanged; at the end, whether a peer was lost, and how long
 *            to wait.  These the rank alone uses
 *
 * All ranks make the same calls in the same order, on one stream each.  A call may be recorded in a graph and run again:
 * what changes from call to call lies in the window.
 * When a peer's words do not come within the limit, the kernel ends, *report becomes CUDA_EXCHANGE_LOST + that rank, and
 * this and all later kernels leave their outputs as they are, without waiting.  Nothing is exchanged after that.
 * Pointers are to device memory and 16-byte aligned.  stream is a cudaStream_t. */
#ifndef KERNELS_CUDA_EXCHANGE_H
#define KERNELS_CUDA_EXCHANGE_H

#include "kernels/op_merge.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_EXCHANGE_MAX_RANKS  8
#define CUDA_EXCHANGE_QUICK_ROWS 16
#define CUDA_EXCHANGE_MAX_ROWS   2048
#define CUDA_EXCHANGE_LOST       0x80000000u

typedef struct cuda_exchange_shape { /* equal on all ranks */
    int32_t n_ranks;                 /* 1..CUDA_EXCHANGE_MAX_RANKS */
    int32_t head_dim;                /* 64 or 128 */
    int32_t max_rows;                /* that a call merges on a rank, up to MAX_ROWS */
    int32_t max_words;               /* of a broadcast */
} cuda_exchange_shape;

typedef struct cuda_exchange_port { /* one rank's end */
    cuda_exchange_shape shape;
    int32_t rank;
    char *windows[CUDA_EXCHANGE_MAX_RANKS]; /* of every rank, as this one reaches them */
    uint32_t *report;                       /* 0, or who was lost; host memory that kernels reach */
} cuda_exchange_port;

int64_t cuda_exchange_window_bytes(const cuda_exchange_shape *shape);

/* Makes a window ready, once it is done on the stream; peers store only after that.  Kernels that wait give up at once
 * until there is a limit.  Errors: DEVICE_LOST. */
BASE_MUST_CHECK base_status cuda_exchange_clear(void *stream, const cuda_exchange_shape *shape,
                                                char *window);

/* How long a kernel after this call waits for a word, in a graph that was recorded before too.
 * Errors: BAD_INPUT (not in 2 .. 2^32 - 1), DEVICE_LOST. */
BASE_MUST_CHECK base_status cuda_exchange_limit(void *stream, const cuda_exchange_port *port,
                                                int64_t limit_us);

/* args: of op_merge.h, with this rank's place among the partials alone filled, and nothing else of them read or written.
 * split: the rank merges heads [rank * H / N, (rank + 1) * H / N) only; o is [T, H / N, D], lse [T, H / N]; needs
 * n_heads, a multiple of N.
 * Aliasing.  o and lse overlap no partials.  Errors: BAD_INPUT (another shape), DEVICE_LOST. */
BASE_MUST_CHECK base_status cuda_exchange_merge(void *stream, const cuda_exchange_port *port,
                                                const kern_merge_args *args, bool split);

/* words [n_words] of root reach all ranks.  Errors: as cuda_exchange_merge. */
BASE_MUST_CHECK base_status cuda_exchange_broadcast(void *stream, const cuda_exchange_port *port,
                                                    uint32_t *words, int32_t n_words, int32_t root);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_EXCHANGE_H */
