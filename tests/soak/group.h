/* tests/soak/group.h - the ranks of a soak, which come late at random: the host before plans, and the device before exchanges
 * (support/late_comm.h, soak/stall.h).  On GPUs a watchman looks at them as at a worker's, so that a false alarm fails the test. */
#ifndef TESTS_SOAK_GROUP_H
#define TESTS_SOAK_GROUP_H

#include "kernels/device.h"
#include "worker/engine/engine.h"

typedef struct soak_group soak_group;

/* Starts MPI.  merge: "mpi", on CPUs, or "nccl-ag", "lsa", "lsa-split" on GPUs, which ranks share where there are fewer.
 * All but rank 0 write nothing to stdout from here on.  Errors: BAD_INPUT, NO_MEMORY, PEER_LOST. */
BASE_MUST_CHECK base_status soak_group_open(const char *merge, soak_group **group_out,
                                            kern_device *device_out, int32_t *n_ranks_out);
/* The context and the comms.  Collective. */
BASE_MUST_CHECK base_status soak_group_join(soak_group *g, int32_t head_dim);
void soak_group_close(soak_group *g); /* NULL is allowed */

int32_t soak_group_rank(const soak_group *g);
kern_ctx *soak_group_ctx(const soak_group *g); /* the group's */
engine_comms soak_group_comms(const soak_group *g);

/* All ranks come here, within ten minutes. */
BASE_MUST_CHECK base_status soak_group_meet(soak_group *g);

/* While e runs: whoever finds a step overdue or a peer missing ends the process.  rest says what comm_look does. */
BASE_MUST_CHECK base_status soak_group_watch(soak_group *g, engine *e);
BASE_MUST_CHECK base_status soak_group_rest(soak_group *g);

#endif /* TESTS_SOAK_GROUP_H */
