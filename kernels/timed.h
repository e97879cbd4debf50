/* kernels/timed.h - a context that counts the time and the bytes of every op it passes on.
 *
 * Its ops are those of another context, each waited for: whoever runs a step over it needs no timers of their
 * own.  Where ops are launched ahead of the device (CUDA) a step takes longer so than without. */
#ifndef KERNELS_TIMED_H
#define KERNELS_TIMED_H

#include "kernels/kern.h"

typedef enum kern_op {
#define X(op) KERN_OP_##op,
#include "kernels/ops.def"
#undef X
    KERN_N_OPS
} kern_op;

typedef struct kern_op_time {
    int64_t n_calls;
    int64_t ns;
    int64_t n_bytes; /* that the calls must read and write at least once */
} kern_op_time;

const char *kern_op_name(kern_op op);

/* inner is borrowed and must outlive the context.  Ended with kern_ctx_destroy.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status kern_ctx_create_timed(kern_ctx *inner, const base_alloc *mem,
                                                  kern_ctx **ctx_out);
/* The sums since create or the last call, which starts them anew.  ctx is a timed one. */
void kern_timed_take(kern_ctx *ctx, kern_op_time times_out[KERN_N_OPS]);

#endif /* KERNELS_TIMED_H */
