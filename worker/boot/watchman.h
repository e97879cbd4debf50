/* worker/boot/watchman.h - a thread that notices what the one that waits for a GPU cannot: a step that is overdue, and a
 * fault that the transport between GPUs knows of.
 *
 * With a rank gone, an exchange on the device never ends, and everything behind it waits: the event of a step, but also
 * launches and copies once the device's queue is full.  None of these has a deadline, so nobody joins the thread that is
 * in one of them. */
#ifndef WORKER_BOOT_WATCHMAN_H
#define WORKER_BOOT_WATCHMAN_H

#include "base/alloc.h"
#include "base/status.h"

#include <stdint.h>

typedef struct watchman watchman;

typedef struct watchman_post { /* all are called by the watchman's thread */
    int64_t (*due_us)(
        void *ctx); /* by base_now_us: when what is under way must have ended; 0: nothing is */
    base_status (*look)(void *ctx); /* at the transport */
    void (*raise)(void *ctx);       /* once, after either: base_last_error says what it was */
    void *ctx;
} watchman_post;

/* post is copied.  Errors: NO_MEMORY. */
BASE_MUST_CHECK base_status watchman_start(const watchman_post *post, const base_alloc *mem,
                                           watchman **watchman_out);
/* Ends the thread.  NULL is allowed. */
void watchman_stop(watchman *w);

#endif /* WORKER_BOOT_WATCHMAN_H */
