/* kernels/stopwatch.h - how long the device takes for ops, whatever the host does meanwhile.
 *
 *   kern_stopwatch_start(ctx, &watch);  ops, or what replay.h runs again;  kern_stopwatch_stop(ctx, &watch, &us);
 * One is going in a context at a time. */
#ifndef KERNELS_STOPWATCH_H
#define KERNELS_STOPWATCH_H

#include "base/status.h"

#include <stdint.h>

struct kern_ctx;

typedef struct kern_stopwatch {
    int64_t begun_ns; /* where ops have finished when they return */
} kern_stopwatch;

/* Errors: DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_stopwatch_start(struct kern_ctx *ctx, kern_stopwatch *watch);
/* Waits for the ops called since.  Errors: DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_stopwatch_stop(struct kern_ctx *ctx, kern_stopwatch *watch,
                                                double *us_out);

#endif /* KERNELS_STOPWATCH_H */
