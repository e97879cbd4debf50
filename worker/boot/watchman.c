#include "worker/boot/watchman.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define LOOK_US 20000

struct watchman {
    watchman_post post;
    pthread_t thread;
    atomic_bool stopped;
    base_alloc mem;
};

static base_status look(const watchman_post *p)
{
    const int64_t due_us = p->due_us(p->ctx);
    const int64_t late_us = due_us == 0 ? -1 : base_now_us() - due_us;
    if (late_us > 0) {
        return BASE_FAIL(BASE_PEER_LOST, "the step under way is overdue by %lld ms",
                         (long long)(late_us / 1000));
    }
    return p->look(p->ctx);
}

static void *watch(void *arg)
{
    watchman *w = arg;
    while (!atomic_load(&w->stopped)) {
        if (look(&w->post) != BASE_OK) {
            w->post.raise(w->post.ctx);
            break;
        }
        base_sleep_us(LOOK_US);
    }
    return NULL;
}

base_status watchman_start(const watchman_post *post, const base_alloc *mem,
                           watchman **watchman_out)
{
    base_status st = BASE_OK;
    watchman *w = mem->get(mem->ctx, sizeof *w);
    if (w == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "watchman");
        goto out;
    }
    w->post = *post;
    w->mem = *mem;
    if (pthread_create(&w->thread, NULL, watch, w) != 0) {
        st = BASE_FAIL(BASE_NO_MEMORY, "the watchman's thread could not be started");
        goto out;
    }
    *watchman_out = w;
    w = NULL;
out:
    mem->put(mem->ctx, w);
    return st;
}

void watchman_stop(watchman *w)
{
    if (w != NULL) {
        const base_alloc mem = w->mem;
        atomic_store(&w->stopped, true);
        (void)pthread_join(w->thread, NULL);
        mem.put(mem.ctx, w);
    }
}
