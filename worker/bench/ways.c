#include "worker/bench/ways.h"

const way ways[] = {
    {"mpi", "mpi", KERN_DEVICE_CPU, true, CHAIN_MERGE},
    {"mpi-a2a", "mpi", KERN_DEVICE_CPU, false, CHAIN_MERGE_OWN},
    {"nccl-ag", "nccl-ag", KERN_DEVICE_CUDA, true, CHAIN_MERGE},
    {"nccl-a2a", "nccl-a2a", KERN_DEVICE_CUDA, false, CHAIN_MERGE_OWN},
    {"nccl-ar", "nccl-ar", KERN_DEVICE_CUDA, false, CHAIN_MERGE},
    {"lsa", "lsa", KERN_DEVICE_CUDA, true, CHAIN_MERGE},
    {"lsa-a2a", "lsa", KERN_DEVICE_CUDA, false, CHAIN_MERGE_OWN},
};
const int32_t n_ways = sizeof ways / sizeof ways[0];
