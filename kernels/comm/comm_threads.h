/* kernels/comm/comm_threads.h - ranks that are threads of one process, for benchmarks and tests.
 *
 * At most n_turns of them run at once: a rank computes while it has a turn, and gives it away while it waits for
 * others.  So on a machine with fewer cores than ranks the time between two exchanges is time of its own. */
#ifndef KERNELS_COMM_COMM_THREADS_H
#define KERNELS_COMM_COMM_THREADS_H

#include "kernels/comm/comm.h"

/* comms_out [n_ranks]: each is used and destroyed by one thread at a time; all of them are to be destroyed.
 * Errors: BAD_INPUT (n_ranks, n_turns below 1), NO_MEMORY. */
BASE_MUST_CHECK base_status comm_threads_create(int32_t n_ranks, int32_t n_turns,
                                                const base_alloc *mem, comm **comms_out);
/* Around all calls of a rank: waits for its first turn; gives it back.  Whoever leaves is lost to ranks that
 * still wait for it. */
void comm_threads_enter(comm *c);
void comm_threads_leave(comm *c);
/* Nanoseconds that the rank waited, for others and for its turn, since the last take. */
int64_t comm_threads_take_waited(comm *c);

#endif /* KERNELS_COMM_COMM_THREADS_H */
