/* worker/boot/host.h - what this machine has to give.  Any thread. */
#ifndef WORKER_BOOT_HOST_H
#define WORKER_BOOT_HOST_H

#include "base/status.h"

#include <stdint.h>

/* Bytes that programs may still take (MemAvailable).  Errors: IO. */
BASE_MUST_CHECK base_status host_memory_available(int64_t *n_bytes_out);

/* Threads for one of n_local ranks: its share of the cores, or those it is bound to if they are fewer;
 * at least 1. */
int32_t host_threads(int32_t n_local);

#endif /* WORKER_BOOT_HOST_H */
