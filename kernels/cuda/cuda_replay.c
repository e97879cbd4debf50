#include "kernels/cuda/cuda_replay.h"

#include "kernels/cuda/cuda_check.h"

#include <string.h>

static bool same(const kern_replay_key *a, const kern_replay_key *b)
{
    return a->owner == b->owner && memcmp(a->words, b->words, sizeof a->words) == 0;
}

static void remove_at(cuda_replay *r, int32_t i)
{
    (void)cudaStreamSynchronize(r->stream);
    (void)cudaGraphExecDestroy(r->graphs[i].exec);
    r->graphs[i] = r->graphs[--r->n_graphs];
}

void cuda_replay_clear(cuda_replay *r)
{
    while (r->n_graphs > 0) {
        remove_at(r, r->n_graphs - 1);
    }
}

void cuda_replay_reset(cuda_replay *r)
{
    cuda_replay_clear(r);
    for (int i = 0; i < 2; i++) {
        if (r->events[i] != NULL) {
            (void)cudaEventDestroy(r->events[i]);
        }
        r->events[i] = NULL;
    }
}

base_status cuda_replay_run(cuda_replay *r, const kern_replay_key *key, bool *done_out)
{
    for (int32_t i = 0; i < r->n_graphs; i++) {
        if (same(&r->graphs[i].key, key)) {
            r->graphs[i].used = ++r->clock;
            *done_out = true;
            return cuda_to_status(cudaGraphLaunch(r->graphs[i].exec, r->stream), "graph");
        }
    }
    return BASE_OK;
}

base_status cuda_replay_begin(cuda_replay *r)
{
    return cuda_to_status(cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal),
                          "recording");
}

static void make_room(cuda_replay *r)
{
    int32_t oldest = 0;
    if (r->n_graphs < CUDA_REPLAY_GRAPHS) {
        return;
    }
    for (int32_t i = 1; i < r->n_graphs; i++) {
        oldest = r->graphs[i].used < r->graphs[oldest].used ? i : oldest;
    }
    remove_at(r, oldest);
}

base_status cuda_replay_end(cuda_replay *r, const kern_replay_key *key, base_status st)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    bool done = false;

    const cudaError_t error = cudaStreamEndCapture(r->stream, &graph);
    if (st != BASE_OK) { /* its text stays; what the capture says is its echo */
        (void)cudaGetLastError();
        goto out;
    }
    BASE_TRY(st, out, cuda_to_status(error, "recording"));
    BASE_TRY(st, out, cuda_to_status(cudaGraphInstantiate(&exec, graph, 0), "graph"));
    make_room(r);
    r->graphs[r->n_graphs++] = (cuda_graph){.key = *key, .exec = exec};
    st = cuda_replay_run(r, key, &done);
out:
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    return st;
}

base_status cuda_replay_start(cuda_replay *r)
{
    base_status st = BASE_OK;
    for (int i = 0; i < 2; i++) {
        if (r->events[i] == NULL) {
            BASE_TRY(st, out, cuda_to_status(cudaEventCreate(&r->events[i]), "event"));
        }
    }
    st = cuda_to_status(cudaEventRecord(r->events[0], r->stream), "event");
out:
    return st;
}

base_status cuda_replay_stop(cuda_replay *r, double *us_out)
{
    base_status st = BASE_OK;
    float ms = 0.0f;
    BASE_TRY(st, out, cuda_to_status(cudaEventRecord(r->events[1], r->stream), "event"));
    BASE_TRY(st, out, cuda_to_status(cudaEventSynchronize(r->events[1]), "event"));
    BASE_TRY(st, out,
             cuda_to_status(cudaEventElapsedTime(&ms, r->events[0], r->events[1]), "event"));
    *us_out = (double)ms * 1e3;
out:
    return st;
}
