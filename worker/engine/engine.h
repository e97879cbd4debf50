/* worker/engine/engine.h - one rank's step loop.
 *
 * Rank 0 holds the ledger and the scheduler, takes commands and emits events through engine_io; the
 * other ranks follow plans.  Commands and events are the structs of group_codec.h, so the wire is one
 * implementation of engine_io (attach.h) and a test script another.
 *
 * Events of a sequence: ADMITTED or REFUSED; PROGRESS after each part of its prompt; TOKENS for every token
 * made, the one that ends it (end-of-sequence, stop id) included; ENDED.  LOAD counts sequences that
 * have begun as running, admitted ones that have not as waiting.
 * A replay (n_sent > 0) goes on as if it had never been interrupted.
 * Ends when a DRAIN command came and nothing runs, when `stop` is set, or when a peer is lost.
 * An idle group exchanges a heartbeat plan every ENGINE_HEARTBEAT_MS. */
#ifndef WORKER_ENGINE_ENGINE_H
#define WORKER_ENGINE_ENGINE_H

#include "base/alloc.h"
#include "base/status.h"
#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "kvshard/format.h"
#include "kvshard/shard.h"
#include "proto/group_codec.h"
#include "worker/model/forward.h"
#include "worker/model/model.h"

#include <signal.h>
#include <stdint.h>

#define ENGINE_MAX_PREFILL_CHUNK (1 << 19)
#define ENGINE_HEARTBEAT_MS      200
#define ENGINE_STEP_MS           30000 /* deadline of the first step, and of an exchange inside it */

/* A rank is killed, or stops: the others notice, say so and are gone within ENGINE_GONE_MS.  Of that, a rank may need
 * ENGINE_ABORT_MS to stop its GPU's kernels; who notices and who ends the ranks (the watchman's looks, mpirun), ENGINE_END_MS;
 * the rest is the least deadline of a step.  A step that should take more than a quarter of it has four times what it
 * should take, and all are gone so much later. */
#define ENGINE_GONE_MS     2000
#define ENGINE_ABORT_MS    500
#define ENGINE_END_MS      300 /* up to 175 were seen: docs/groups.md */
#define ENGINE_MIN_STEP_MS (ENGINE_GONE_MS - ENGINE_ABORT_MS - ENGINE_END_MS)
#define ENGINE_STEP_GOAL_MS \
    250 /* what a server's steps should take: nobody waits longer for a token */
#define ENGINE_PLAN_MS       ENGINE_MIN_STEP_MS /* a plan must come within this: heartbeat and margin */
#define ENGINE_STOP_GRACE_MS 500 /* a rank told to leave waits so long for rank 0's word */

typedef struct engine_options {
    int32_t max_batch; /* sequences at once, 1..1024: the number of slots */
    int32_t
        prefill_chunk; /* tokens of prefill in a step, a multiple of 128, up to ENGINE_MAX_PREFILL_CHUNK */
    int64_t max_context; /* tokens of one sequence, prompt and output */
    int32_t n_pages;     /* of each rank's pool */
    int64_t
        step_goal_ms; /* prompts get less than prefill_chunk where a step would take longer; 0: never */
    int32_t
        n_ahead; /* 1: a step is planned and given to the device while the one before runs, for devices that run beside
                    the host: they never wait for it, and a sequence that ends costs one token that nobody sees.  0: a
                    step has ended before the next is planned.  Tokens are the same */
} engine_options;

typedef struct engine_io {
    void *ctx;
    /* The next command, or *down_out = NULL after waiting at most wait_us (0: do not wait).  Valid until the
     * next call.  A peer that went away is a CANCEL for each of its sequences. */
    base_status (*next)(void *ctx, int64_t wait_us, const group_down **down_out);
    /* Takes an event; must not block.  The event is borrowed. */
    void (*emit)(void *ctx, const group_up *up);
} engine_io;

typedef struct engine engine;

/* How the ranks talk: two comms of the same ranks, or one that serves for both, where ops work on the host's memory. */
typedef struct engine_comms {
    comm *plans;   /* over the host's memory */
    comm *tensors; /* over ctx's */
} engine_comms;

/* Everything is borrowed.  Collective: all ranks create with equal options.
 * Errors: BAD_INPUT, NO_MEMORY, PEER_LOST. */
BASE_MUST_CHECK base_status engine_create(const model *m, const kv_format *format, kern_ctx *ctx,
                                          const engine_comms *comms, const engine_options *options,
                                          const base_alloc *mem, engine **engine_out);
void engine_destroy(engine *e); /* NULL is allowed */

/* What engine_create gives to cache and forward: for those who plan memory.  Pure. */
void engine_limits(const engine_options *options, kv_shard_options *shard_out,
                   forward_limits *forward_out);

/* io on rank 0, NULL elsewhere.  stop may be set by a signal handler on any rank: rank 0 ends the group
 * after its step, another rank waits ENGINE_STOP_GRACE_MS for that.
 * Errors: PEER_LOST, DEVICE_LOST, BAD_INPUT (a broken plan: a bug), CANCELLED (told to stop, and rank 0 did not
 * end the group in time). */
BASE_MUST_CHECK base_status engine_run(engine *e, const engine_io *io,
                                       const volatile sig_atomic_t *stop);

/* When the step under way must have ended, by base_now_us; 0: none is.  Any thread. */
int64_t engine_due_us(const engine *e);

#endif /* WORKER_ENGINE_ENGINE_H */
