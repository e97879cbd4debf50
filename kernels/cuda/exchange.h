/* kernels/cuda/exchange.h - partials, sums and shares of GPUs that reach each other's memory, each exchanged in one launch.
 *
 * Every rank has a window: device memory that all ranks store into.  A kernel stores this rank's rows into the windows
 * of its peers, waits for theirs in its own, and merges in rank order with the arithmetic of op_merge.h: the bits of
 * kern_merge on what an all-gather would have brought.  Why no word is read too early or lost: docs/merge.md.
 *
 *   window   [2][N][max_words] words, each beside its epoch                     broadcast
 *            [2][N][QUICK_ROWS][D + 2] words, each beside its epoch             merge of up to QUICK_ROWS rows
 *            [3][N][max_rows][D + 4] words, or a mark where none has come yet   merge of more
 *            [3][N][lines][128] words, or a mark                                sum in one crossing
 *            [3][N][max_sum / N][2] words, or a mark: a share, its sum          sum in two
 *            [2][N][max_gather] words, each beside its epoch                    gather
 *            beside each, how often every word, row or line was exchanged; at the end, whether a peer was lost, and how
 *            long to wait.  These the rank alone uses
 *
 * All ranks make the same calls in the same order, on one stream each.  A call may be recorded in a graph and run again:
 * what changes from call to call lies in the window.
 * When a peer's words do not come within the limit, the kernel ends, *report becomes CUDA_EXCHANGE_LOST + that rank, and
 * this and all later kernels leave their outputs as they are, without waiting.  Nothing is exchanged after that.
 * Pointers are to device memory and 16-byte aligned.  stream is a cudaStream_t. */
#ifndef KERNELS_CUDA_EXCHANGE_H
#define KERNELS_CUDA_EXCHANGE_H

#include "kernels/op_deal.h"
#include "kernels/op_merge.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_EXCHANGE_MAX_RANKS  8
#define CUDA_EXCHANGE_QUICK_ROWS 16
#define CUDA_EXCHANGE_MAX_ROWS   2048
#define CUDA_EXCHANGE_LINE       128 /* words that a warp exchanges at once where there are no rows */
#define CUDA_EXCHANGE_MAX_SUM    (CUDA_EXCHANGE_MAX_ROWS * CUDA_EXCHANGE_LINE)
#define CUDA_EXCHANGE_MAX_GATHER (CUDA_EXCHANGE_MAX_ROWS * CUDA_EXCHANGE_LINE)
#define CUDA_EXCHANGE_LOST       0x80000000u

typedef struct cuda_exchange_shape { /* equal on all ranks */
    int32_t n_ranks;                 /* 1..CUDA_EXCHANGE_MAX_RANKS */
    int32_t head_dim;                /* 64 or 128 */
    int32_t max_rows;                /* that a call merges on a rank, up to MAX_ROWS */
    int32_t max_words;               /* of a broadcast */
    int32_t max_sum;                 /* elements, up to MAX_SUM; 0: there are no sums */
    int32_t max_gather; /* words of a rank, up to MAX_GATHER; 0: there are no gathers */
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
 * Aliasing.  o and lse overlap no partials.  Errors: BAD_INPUT (another shape), DEVICE_LOST. */
BASE_MUST_CHECK base_status cuda_exchange_merge(void *stream, const cuda_exchange_port *port,
                                                const kern_merge_args *args);

/* The same of this rank's heads alone, with the arguments of comm_merge_own (comm_merge.h): of deal, x and what shares its
 * heads out are read, of args all but the partials.  As many heads travel to each rank as the one with most has.
 * Aliasing, errors: as cuda_exchange_merge. */
BASE_MUST_CHECK base_status cuda_exchange_merge_own(void *stream, const cuda_exchange_port *port,
                                                    const kern_deal_args *deal,
                                                    const kern_merge_args *args);

/* Whether the shape has room for what cuda_exchange_merge_own would exchange: the same on all ranks. */
bool cuda_exchange_has_room(const cuda_exchange_shape *shape, const kern_deal_args *deal);

/* words [n_words] of root reach all ranks.  Errors: as cuda_exchange_merge. */
BASE_MUST_CHECK base_status cuda_exchange_broadcast(void *stream, const cuda_exchange_port *port,
                                                    uint32_t *words, int32_t n_words, int32_t root);

/* x [n] becomes the sum of all ranks' x, added in rank order: the same bits on every rank.  Errors: as cuda_exchange_merge. */
BASE_MUST_CHECK base_status cuda_exchange_sum(void *stream, const cuda_exchange_port *port,
                                              float *x, int32_t n);

/* all [N][n_words]: rank r's mine, bit for bit, at r * n_words.  mine may be its place in all, and overlaps nothing else of
 * it; both are 4-byte aligned, and faster where all places are 16-byte aligned.  Errors: as cuda_exchange_merge. */
BASE_MUST_CHECK base_status cuda_exchange_gather(void *stream, const cuda_exchange_port *port,
                                                 const uint32_t *mine, uint32_t *all,
                                                 int32_t n_words);

#ifdef __cplusplus
}
#endif
#endif /* KERNELS_CUDA_EXCHANGE_H */
