/* worker/bench/parts.h - the parts of a step that a report has lines for, and what each took by the timers of an ops' context
 * and a comm (kernels/timed.h, comm_timed.h). */
#ifndef WORKER_BENCH_PARTS_H
#define WORKER_BENCH_PARTS_H

#include "kernels/comm/comm.h"
#include "kernels/timed.h"

/* gemm has the norm before a product and the gating after it, append RoPE and the turns of what it stores. */
typedef enum bench_part {
    BENCH_ATTENTION,
    BENCH_GEMM,
    BENCH_NORM,
    BENCH_TURNS,
    BENCH_APPEND,
    BENCH_PACK,
    BENCH_MERGE,
    BENCH_EXCHANGE,
    BENCH_OTHER, /* all that is not named */
    BENCH_N_PARTS
} bench_part;

const char *bench_part_name(bench_part part);

typedef struct bench_parts {
    double ns[BENCH_N_PARTS];
    double n_bytes[BENCH_N_PARTS];
} bench_parts;

/* Adds what ctx and tensors have counted since they were last asked; of BENCH_OTHER nothing.  Both are timed. */
void bench_parts_take(bench_parts *p, kern_ctx *ctx, comm *tensors);
/* BENCH_OTHER becomes what is left of all_ns. */
void bench_parts_rest(bench_parts *p, double all_ns);

#endif /* WORKER_BENCH_PARTS_H */
