#include "worker/bench/parts.h"

#include "kernels/comm/comm_timed.h"

const char *bench_part_name(bench_part part)
{
    static const char *const names[BENCH_N_PARTS] = {
        "attention", "gemm", "norm", "turns", "append", "pack", "merge", "exchange", "other"};
    return names[part];
}

static bench_part part_of(kern_op op)
{
    switch (op) {
    case KERN_OP_attn: return BENCH_ATTENTION;
    case KERN_OP_gated:
    case KERN_OP_gemm:
    case KERN_OP_project: return BENCH_GEMM;
    case KERN_OP_rmsnorm: return BENCH_NORM;
    case KERN_OP_turns: return BENCH_TURNS;
    case KERN_OP_append: return BENCH_APPEND;
    case KERN_OP_pack: return BENCH_PACK;
    case KERN_OP_merge: return BENCH_MERGE;
    default: return BENCH_OTHER;
    }
}

void bench_parts_take(bench_parts *p, kern_ctx *ctx, comm *tensors)
{
    kern_op_time times[KERN_N_OPS];
    int64_t exchange_ns = 0;
    int64_t n_exchanges = 0;

    kern_timed_take(ctx, times);
    comm_timed_take(tensors, &exchange_ns, &n_exchanges);
    for (int i = 0; i < KERN_N_OPS; i++) {
        const bench_part part = part_of((kern_op)i);
        if (part != BENCH_OTHER) {
            p->ns[part] += (double)times[i].ns;
            p->n_bytes[part] += (double)times[i].n_bytes;
        }
    }
    p->ns[BENCH_EXCHANGE] += (double)exchange_ns;
}

void bench_parts_rest(bench_parts *p, double all_ns)
{
    double named = 0.0;
    for (int i = 0; i < BENCH_OTHER; i++) {
        named += p->ns[i];
    }
    p->ns[BENCH_OTHER] = all_ns - named;
}
