/* kernels/cpu/cpu_pool.h - the threads of a CPU context.
 *
 * Workers sleep while there is no job; nobody spins.  A job is n_tasks calls of one function,
 * handed out in order to whoever is free.  Which thread runs a task must not change its result. */
#ifndef KERNELS_CPU_CPU_POOL_H
#define KERNELS_CPU_CPU_POOL_H

#include "base/alloc.h"
#include "base/status.h"

#include <stdint.h>

typedef struct cpu_pool cpu_pool;

/* task in 0..n_tasks-1; thread in 0..n_threads-1, for scratch: never two tasks at once. */
typedef void (*cpu_pool_fn)(void *arg, int32_t task, int32_t thread);

/* n_threads counts the caller; n_threads - 1 are started, with all signals blocked.
 * Errors: NO_MEMORY (also: no thread could be started). */
BASE_MUST_CHECK base_status cpu_pool_create(int32_t n_threads, const base_alloc *mem,
                                            cpu_pool **pool_out);
void cpu_pool_destroy(cpu_pool *pool); /* NULL is allowed */

int32_t cpu_pool_threads(const cpu_pool *pool);

/* Returns when every task has run.  One caller at a time. */
void cpu_pool_run(cpu_pool *pool, int32_t n_tasks, cpu_pool_fn fn, void *arg);

#endif /* KERNELS_CPU_CPU_POOL_H */
