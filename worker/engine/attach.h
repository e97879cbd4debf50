/* worker/engine/attach.h - rank 0's line to the coordinator: engine_io over one gRPC stream.
 *
 * Dials, says Hello, waits for Welcome; then commands queue up for the step loop and events go out.
 * When the stream ends it dials again, after 100 ms, then twice as long each time up to 2 s, for ever;
 * each outage is logged once.  The step loop gets a CANCEL for every sequence of the lost stream, and
 * nothing of theirs reaches the next one (seq numbers belong to a stream).
 * While the step loop is busy the latest LOAD is sent again, so that it counts as a heartbeat.
 * A coordinator that refuses the group (FAILED_PRECONDITION: another model, policy or protocol) is not
 * dialled again: next returns BAD_INPUT with its reason, which ends the group.
 * A coordinator that is silent for ATTACH_SILENCE_MS is taken for gone.
 *
 * Threads.  One of its own dials; rpc's call the handlers.  engine_io is used by the step loop. */
#ifndef WORKER_ENGINE_ATTACH_H
#define WORKER_ENGINE_ATTACH_H

#include "base/alloc.h"
#include "base/status.h"
#include "proto/group_codec.h"
#include "worker/engine/engine.h"

#define ATTACH_SILENCE_MS 5000
#define ATTACH_PATH       "/ropewalk.v1.Group/Attach"

typedef struct attach attach;

/* rpc_init was called.  hello is encoded here, not kept.  Returns at once: dialling goes on beside.
 * Errors: BAD_INPUT (the address), OUT_OF_RANGE (hello above the message limit), NO_MEMORY. */
BASE_MUST_CHECK base_status attach_create(const char *coordinator, const group_hello *hello,
                                          const base_alloc *mem, attach **attach_out);
/* Lets queued events out for up to 300 ms and hangs up.  NULL is allowed. */
void attach_destroy(attach *a);

/* Valid until attach_destroy. */
engine_io attach_io(attach *a);

#endif /* WORKER_ENGINE_ATTACH_H */
