/* kernels/comm/comm_ways.h - the ways in which ranks exchange partials: what --merge names, and who has which.  Pure. */
#ifndef KERNELS_COMM_COMM_WAYS_H
#define KERNELS_COMM_COMM_WAYS_H

#include "kernels/device.h"

#include <stdbool.h>

/* Way, name, where the ranks compute, with all weights on each, with weights that they share. */
#define COMM_WAYS(X)                                            \
    X(COMM_MPI, "mpi", KERN_DEVICE_CPU, true, true)             \
    X(COMM_NCCL_AG, "nccl-ag", KERN_DEVICE_CUDA, true, false)   \
    X(COMM_NCCL_AR, "nccl-ar", KERN_DEVICE_CUDA, true, false)   \
    X(COMM_NCCL_A2A, "nccl-a2a", KERN_DEVICE_CUDA, false, true) \
    X(COMM_LSA, "lsa", KERN_DEVICE_CUDA, true, true)

#define COMM_WAYS_ENUM(way, name, device, whole, split)     way,
#define COMM_WAYS_AND_NAME(way, name, device, whole, split) ", " name

typedef enum comm_way { COMM_WAYS(COMM_WAYS_ENUM) COMM_N_WAYS } comm_way;

/* The choices of an option (base/options.h). */
#define COMM_MERGE_CHOICES "auto" COMM_WAYS(COMM_WAYS_AND_NAME)

const char *comm_way_name(comm_way way);
kern_device comm_way_device(comm_way way);
/* With weights that ranks share, or with all on each. */
bool comm_way_takes(comm_way way, bool split_weights);
/* COMM_N_WAYS: none has the name. */
comm_way comm_way_find(const char *name);

#endif /* KERNELS_COMM_COMM_WAYS_H */
