/* kernels/replay.h - a run of ops that comes again with the same args, given to the device in one piece.
 *
 *   bool done = false;
 *   kern_replay(ctx, &key, &done);          done: the ops that were recorded under this key run again
 *   if (!done) {
 *       kern_record_begin(ctx);
 *       st = ... ops ...
 *       st = kern_record_end(ctx, &key, st);   the ops run now, once
 *   }
 *
 * The caller vouches that equal keys mean equal args: pointers and sizes.  What lies in mirrors may differ, and was
 * checked by whoever wrote it, since front doors do not look again.  Between begin and end there are ops only: no
 * send, fetch, wait, or allocation.
 * What was recorded is forgotten when memory of the context ends, so no key outlives what it points to.
 * On the CPU, and in a timed context, nothing is ever done, and begin and end have nothing to do.
 * kern_replay_or_record is all of this in one call. */
#ifndef KERNELS_REPLAY_H
#define KERNELS_REPLAY_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct kern_ctx;

#define KERN_REPLAY_WORDS 6

typedef struct kern_replay_key {
    const void *owner; /* whose ops they are */
    int64_t words[KERN_REPLAY_WORDS];
} kern_replay_key;

/* Errors: DEVICE_LOST. */
BASE_MUST_CHECK base_status kern_replay(struct kern_ctx *ctx, const kern_replay_key *key,
                                        bool *done_out);
BASE_MUST_CHECK base_status kern_record_begin(struct kern_ctx *ctx);
/* st: of the ops; not OK: nothing runs, and it is returned.  Errors: DEVICE_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status kern_record_end(struct kern_ctx *ctx, const kern_replay_key *key,
                                            base_status st);

/* Runs what was recorded under key again, or ops(arg) for the first time.  Errors: those of ops, DEVICE_LOST, NO_MEMORY. */
BASE_MUST_CHECK base_status kern_replay_or_record(struct kern_ctx *ctx, const kern_replay_key *key,
                                                  base_status (*ops)(void *arg), void *arg);

#endif /* KERNELS_REPLAY_H */
