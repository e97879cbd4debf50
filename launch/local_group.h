/* launch/local_group.h - a coordinator and one mpirun group on this machine.
 *
 *   ropewalk-coordinator   gRPC for clients and, on a free loopback port, for rank 0
 *   mpirun -n RANKS        ropewalk-worker
 *
 * Threads.  main() only; open before rpc_init. */
#ifndef LAUNCH_LOCAL_GROUP_H
#define LAUNCH_LOCAL_GROUP_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define LOCAL_MAX_RANKS 64

typedef struct local_group local_group;

typedef struct local_group_options {
    const char *model;        /* folder */
    const char *kv;           /* policy text */
    const char *device;       /* cpu or cuda; NULL: the workers decide */
    const char *merge;        /* how ranks exchange partials; NULL: the worker's default */
    const char *weights;      /* replicated or split; NULL: the worker's default */
    bool share_gpu;           /* ranks may share a GPU */
    const char *rope_scaling; /* JSON or "none"; NULL: the model's */
    const char *listen;       /* HOST:PORT of clients; port 0 takes a free one */
    int32_t ranks;            /* 1..LOCAL_MAX_RANKS */
    int64_t max_context;      /* 0: what fits */
    int32_t max_batch;        /* 0: the worker's default */
    int32_t prefill_chunk;    /* 0: the worker's default */
    const char *log_path;     /* where both programs write; NULL: stderr */
    const char *log_level;    /* NULL: info */
} local_group_options;

/* Starts both; returns before they are ready.  Errors: BAD_INPUT (a device that is not here, or not for so many ranks),
 * NOT_FOUND, IO, TIMEOUT. */
BASE_MUST_CHECK base_status local_group_open(const local_group_options *options,
                                             local_group **group_out);
/* Ends both: the workers first, then the coordinator.  NULL is allowed.  At most about 8 s. */
void local_group_close(local_group *group);

const char *local_group_target(const local_group *group); /* "HOST:PORT" where clients connect */

/* Errors: UNAVAILABLE naming the program that has ended and its exit status, and, with a log, why a worker left. */
BASE_MUST_CHECK base_status local_group_check(const local_group *group);

/* Open MPI's variables for one machine, root in a container included; what the user has set stays. */
void local_group_set_environment(void);

#endif /* LAUNCH_LOCAL_GROUP_H */
