/* kernels/cpu/cpu_state.h - what a CPU context holds: threads and fixed scratch. */
#ifndef KERNELS_CPU_CPU_STATE_H
#define KERNELS_CPU_CPU_STATE_H

#include "kernels/backend.h"
#include "kernels/cpu/cpu_few.h"
#include "kernels/cpu/cpu_pool.h"

#include <stdbool.h>
#include <stdint.h>

/* GEMM: a tile of w as f32.  2 MiB: large enough that sgemm packs x rarely, small enough for L3. */
#define CPU_GEMM_ROWS 256
#define CPU_GEMM_COLS 2048

/* Attention: query rows of one tile.  256 of them pay for unpacking a block (about 1/10 of the
 * work) and leave the tile in L2. */
#define CPU_ATTN_ROWS       256
#define CPU_ATTN_DIM        128
#define CPU_ATTN_SPLIT_ROWS 16 /* tiles up to this many rows may be split by blocks */
#define CPU_ATTN_TASKS      256

typedef struct cpu_gemm_scratch {
    float w[CPU_GEMM_ROWS * CPU_GEMM_COLS];
} cpu_gemm_scratch;

typedef struct cpu_attn_scratch {
    float q[CPU_ATTN_ROWS * CPU_ATTN_DIM];      /* scaled queries */
    float o[CPU_ATTN_ROWS * CPU_ATTN_DIM];      /* not yet divided by l */
    float s[CPU_ATTN_ROWS * KERN_BLOCK_TOKENS]; /* logits, then weights */
    float kv[KERN_BLOCK_TOKENS * CPU_ATTN_DIM]; /* one side of one block */
    float m[CPU_ATTN_ROWS];                     /* largest logit so far */
    double l[CPU_ATTN_ROWS];                    /* sum of exp(logit - m) */
    cpu_few_side few_k;                         /* of the task's head */
    cpu_few_side few_v;
} cpu_attn_scratch;

typedef union cpu_scratch {
    cpu_gemm_scratch gemm;
    cpu_attn_scratch attn;
} cpu_scratch;

typedef struct cpu_attn_partial { /* of a split tile */
    float o[CPU_ATTN_SPLIT_ROWS * CPU_ATTN_DIM];
    float m[CPU_ATTN_SPLIT_ROWS];
    double l[CPU_ATTN_SPLIT_ROWS];
} cpu_attn_partial;

typedef struct cpu_attn_task { /* tokens [first, first + n_tokens) of a sequence, one KV head */
    int32_t seq;
    int32_t kv_head;
    int32_t first;
    int32_t n_tokens;
    int32_t page_begin; /* [page_begin, page_end) of page_list */
    int32_t page_end;
    bool with_opens;
    int32_t split; /* 0-based, of n_splits; partials are used when n_splits > 1 */
    int32_t n_splits;
} cpu_attn_task;

typedef struct cpu_state {
    cpu_pool *pool;
    cpu_isa isa; /* of code that is chosen at run time */
    void *scratch_base;
    cpu_scratch *scratch;                      /* [n_threads], on cache lines */
    cpu_attn_task tasks[CPU_ATTN_TASKS];       /* one wave */
    cpu_attn_partial partials[CPU_ATTN_TASKS]; /* of the task with the same index */
} cpu_state;

/* Tasks [begin, end) of n items in n_tasks shares whose bounds depend on n and n_tasks alone. */
static inline int64_t cpu_share_begin(int64_t n, int32_t n_tasks, int32_t task)
{
    return n * task / n_tasks;
}

/* How many tasks are worth waking threads for, when n items cost cost_ns each. */
static inline int32_t cpu_share_count(const cpu_state *state, int64_t n, int64_t cost_ns)
{
    const int64_t worth = n * cost_ns / 20000; /* a wake-up costs 5 to 10 us */
    const int64_t most = cpu_pool_threads(state->pool);
    const int64_t count = worth < most ? worth : most;
    return count > n ? (int32_t)n : count < 1 ? 1 : (int32_t)count;
}

static inline cpu_state *cpu_state_of(const kern_ctx *ctx)
{
    return ctx->state;
}

#endif /* KERNELS_CPU_CPU_STATE_H */
