/* kernels/cuda/cuda_replay.h - replay.h on a GPU: a CUDA graph for each key, the least recently used given up; and
 * stopwatch.h.
 *
 * A graph keeps device addresses: whoever ends memory of the context calls cuda_replay_clear. */
#ifndef KERNELS_CUDA_CUDA_REPLAY_H
#define KERNELS_CUDA_CUDA_REPLAY_H

#include "base/status.h"
#include "kernels/replay.h"

#include <cuda_runtime_api.h>
#include <stdint.h>

#define CUDA_REPLAY_GRAPHS 64

typedef struct cuda_graph {
    kern_replay_key key;
    cudaGraphExec_t exec;
    uint64_t used; /* the clock's reading */
} cuda_graph;

typedef struct cuda_replay {
    cudaStream_t stream;
    cuda_graph graphs[CUDA_REPLAY_GRAPHS];
    int32_t n_graphs;
    uint64_t clock;
    cudaEvent_t events[2]; /* made when the first stopwatch starts */
} cuda_replay;

void cuda_replay_clear(cuda_replay *r);
/* Clears it, and gives back the events. */
void cuda_replay_reset(cuda_replay *r);

base_status cuda_replay_run(cuda_replay *r, const kern_replay_key *key, bool *done_out);
base_status cuda_replay_begin(cuda_replay *r);
base_status cuda_replay_end(cuda_replay *r, const kern_replay_key *key, base_status st);

base_status cuda_replay_start(cuda_replay *r);
base_status cuda_replay_stop(cuda_replay *r, double *us_out);

#endif /* KERNELS_CUDA_CUDA_REPLAY_H */
