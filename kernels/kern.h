/* kernels/kern.h - what the layers above include: the ops and the context they run in.
 *
 * A context is one backend and one stream.  On the CPU a stream is the calling thread and an op
 * has finished when it returns; code above must not rely on that. */
#ifndef KERNELS_KERN_H
#define KERNELS_KERN_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/memory.h"
#include "kernels/op_append.h"
#include "kernels/op_attn.h"
#include "kernels/op_basis.h"
#include "kernels/op_bias.h"
#include "kernels/op_deal.h"
#include "kernels/op_embed.h"
#include "kernels/op_gated.h"
#include "kernels/op_gemm.h"
#include "kernels/op_merge.h"
#include "kernels/op_pack.h"
#include "kernels/op_project.h"
#include "kernels/op_rmsnorm.h"
#include "kernels/op_rope.h"
#include "kernels/op_sample.h"
#include "kernels/op_swiglu.h"
#include "kernels/op_turns.h"
#include "kernels/replay.h"
#include "kernels/stopwatch.h"

#include <stdint.h>

typedef struct kern_ctx kern_ctx;

#define KERN_MAX_THREADS 256

/* A CPU context whose ops use n_threads (1..KERN_MAX_THREADS) threads, GEMM included (a process
 * setting of OpenBLAS: one CPU context per process).  Holds fixed scratch.
 * Errors: BAD_INPUT, NO_MEMORY. */
BASE_MUST_CHECK base_status kern_ctx_create_cpu(int32_t n_threads, const base_alloc *mem,
                                                kern_ctx **ctx_out);
void kern_ctx_destroy(kern_ctx *ctx); /* NULL is allowed */

#endif /* KERNELS_KERN_H */
