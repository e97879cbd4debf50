/* launch/client.h - calls to a coordinator, blocking, for commands.
 *
 * Threads.  One caller; on_event runs on the channel's poller while client_generate waits. */
#ifndef LAUNCH_CLIENT_H
#define LAUNCH_CLIENT_H

#include "base/status.h"
#include "proto/inference_codec.h"
#include "proto/rpc.h"

#include <signal.h>
#include <stdint.h>

typedef struct local_group local_group;

/* Waits until the server says SERVING; with a group, also that its programs still run.
 * Errors: TIMEOUT (target and seconds), UNAVAILABLE (a program ended), CANCELLED (*stop was set). */
BASE_MUST_CHECK base_status client_wait_ready(rpc_channel *channel, const char *target,
                                              const local_group *group, int64_t timeout_ms,
                                              const volatile sig_atomic_t *stop);

typedef void (*client_on_event)(void *ctx, const inference_event *event);

/* Runs one Generate to its end, or to that of the group, if there is one.  Errors: CANCELLED (*stop was set, or the
 * server cancelled), TIMEOUT, UNAVAILABLE (also: a program of the group ended), BAD_INPUT, OUT_OF_RANGE, EXHAUSTED,
 * NOT_FOUND with the server's text, IO (anything else). */
BASE_MUST_CHECK base_status client_generate(rpc_channel *channel, const local_group *group,
                                            const inference_generate_request *request,
                                            int64_t timeout_ms, client_on_event on_event, void *ctx,
                                            const volatile sig_atomic_t *stop);

#endif /* LAUNCH_CLIENT_H */
