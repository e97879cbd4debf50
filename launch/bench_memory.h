/* launch/bench_memory.h - an allocator that counts, so that reports of memory are measured, not computed. */
#ifndef LAUNCH_BENCH_MEMORY_H
#define LAUNCH_BENCH_MEMORY_H

#include "base/alloc.h"
#include "worker/model/model.h"

#include <stdint.h>

typedef struct bench_counter {
    int64_t n_bytes; /* asked for so far */
} bench_counter;

/* The heap, counted; counter must outlive all that is allocated with it. */
base_alloc bench_counting_heap(bench_counter *counter);

/* Bytes of a model's tensors, each once: mapped, and shared by the ranks of a machine. */
int64_t bench_weight_bytes(const model *m);

#endif /* LAUNCH_BENCH_MEMORY_H */
