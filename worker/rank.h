/* worker/rank.h - a rank of a group, from its command line to an engine that is ready, and the line to a coordinator.
 *
 * Threads.  main's. */
#ifndef WORKER_RANK_H
#define WORKER_RANK_H

#include "kvshard/calibration.h"
#include "worker/boot/member.h"
#include "worker/engine/attach.h"
#include "worker/engine/engine.h"
#include "worker/engine/options.h"

typedef struct rank { /* zeroed: not there */
    member m;
    kv_calibration *calibration; /* NULL: the policy needs none */
    kv_format *format;
    engine *engine;
    engine_options sizes;
    int64_t *weight_bytes; /* [ranks] */
} rank;

/* Collective.  Errors: those of the parts; the process then ends, or rank_end does. */
BASE_MUST_CHECK base_status rank_make(rank *r, const boot_world *world,
                                      const worker_options *wished);
void rank_end(rank *r);

/* Of rank 0, after rpc_init.  Errors: attach_create's. */
BASE_MUST_CHECK base_status rank_attach(const rank *r, const char *coordinator,
                                        attach **attach_out);

#endif /* WORKER_RANK_H */
