/* An exchange is two meetings of all ranks: when every buffer is there, and when every rank has copied. */
#include "kernels/comm/comm_threads.h"

#include "base/clock.h"
#include "kernels/comm/comm_backend.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

typedef struct hall { /* where the ranks meet */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int32_t n_ranks;
    int32_t n_comms; /* that are not destroyed yet */
    int32_t n_free_turns;
    int32_t n_arrived;
    uint64_t n_meetings;
    bool broken;         /* somebody left or gave up */
    const void **offers; /* [n_ranks] */
} hall;

typedef struct thread_comm {
    comm base;
    hall *hall;
    int64_t waited_ns;
} thread_comm;

static struct timespec deadline_of(int64_t timeout_ms)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += timeout_ms / 1000;
    at.tv_nsec += timeout_ms % 1000 * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

static void give_turn(hall *h)
{
    h->n_free_turns++;
    (void)pthread_cond_broadcast(&h->changed);
}

static void take_turn(hall *h)
{
    while (h->n_free_turns == 0) { /* whoever has one waits for no turn while it has it */
        (void)pthread_cond_wait(&h->changed, &h->lock);
    }
    h->n_free_turns--;
}

/* Until all ranks are here; the lock is held.  The turn is another's meanwhile.  Errors: PEER_LOST. */
static base_status meet(thread_comm *c, const struct timespec *until)
{
    hall *h = c->hall;
    const int64_t begun = base_now_ns();
    const uint64_t meeting = h->n_meetings;
    int error = 0;

    give_turn(h);
    if (++h->n_arrived == h->n_ranks) {
        h->n_arrived = 0;
        h->n_meetings++;
        (void)pthread_cond_broadcast(&h->changed);
    }
    while (h->n_meetings == meeting && !h->broken && error != ETIMEDOUT) {
        error = pthread_cond_timedwait(&h->changed, &h->lock, until);
    }
    const bool met = h->n_meetings != meeting;
    if (!met) {
        h->broken = true;
        (void)pthread_cond_broadcast(&h->changed);
    }
    take_turn(h);
    c->waited_ns += base_now_ns() - begun;
    return met ? BASE_OK
               : BASE_FAIL(BASE_PEER_LOST, "rank %d waited for a rank of this process that is gone",
                           c->base.rank);
}

/* What a rank takes of an offer. */
typedef struct taking {
    size_t from; /* of each offer, bytes */
    size_t n_bytes;
    int32_t root; /* of this one alone; below 0: of all, one behind the other */
} taking;

static base_status exchange(thread_comm *c, const void *mine, char *to, taking t,
                            int64_t timeout_ms)
{
    base_status st = BASE_OK;
    hall *h = c->hall;
    const struct timespec until = deadline_of(timeout_ms);

    (void)pthread_mutex_lock(&h->lock);
    h->offers[c->base.rank] = mine;
    BASE_TRY(st, out, meet(c, &until));
    (void)pthread_mutex_unlock(&h->lock);
    for (int32_t r = 0; r < h->n_ranks; r++) {
        char *place = t.root < 0 ? to + (size_t)r * t.n_bytes : to;
        const char *from = (const char *)h->offers[r] + t.from;
        if ((t.root < 0 || r == t.root) && place != from) {
            memcpy(place, from, t.n_bytes);
        }
    }
    (void)pthread_mutex_lock(&h->lock);
    st = meet(c, &until);
out:
    (void)pthread_mutex_unlock(&h->lock);
    return st;
}

static base_status threads_broadcast(comm *c, void *buf, size_t n_bytes, int32_t root,
                                     int64_t timeout_ms)
{
    const taking t = {0, n_bytes, root};
    return exchange((thread_comm *)c, buf, buf, t, timeout_ms);
}

static base_status threads_all_gather(comm *c, const void *mine, void *all, size_t n_bytes,
                                      int64_t timeout_ms)
{
    const taking t = {0, n_bytes, -1};
    return exchange((thread_comm *)c, mine, all, t, timeout_ms);
}

static base_status threads_all_to_all(comm *c, const void *send, void *recv, const int32_t *begins,
                                      size_t unit_bytes, int64_t timeout_ms)
{
    const taking t = {comm_part_at(begins, c->rank, unit_bytes),
                      comm_part_bytes(begins, c->rank, unit_bytes), -1};
    return exchange((thread_comm *)c, send, recv, t, timeout_ms);
}

static void hall_free(hall *h, const base_alloc *mem)
{
    (void)pthread_cond_destroy(&h->changed);
    (void)pthread_mutex_destroy(&h->lock);
    mem->put(mem->ctx, h->offers);
    mem->put(mem->ctx, h);
}

static void threads_destroy(comm *c)
{
    const base_alloc mem = c->mem;
    hall *h = ((thread_comm *)c)->hall;

    (void)pthread_mutex_lock(&h->lock);
    const bool last = --h->n_comms == 0;
    (void)pthread_mutex_unlock(&h->lock);
    if (last) {
        hall_free(h, &mem);
    }
    mem.put(mem.ctx, c);
}

static const comm_backend threads_backend = {
    .name = "threads",
    .broadcast = threads_broadcast,
    .all_gather = threads_all_gather,
    .all_to_all = threads_all_to_all,
    .destroy = threads_destroy,
};

static base_status hall_create(int32_t n_ranks, int32_t n_turns, const base_alloc *mem,
                               hall **hall_out)
{
    pthread_condattr_t monotonic;
    hall *h = mem->get(mem->ctx, sizeof *h);
    const void **offers = mem->get(mem->ctx, (size_t)n_ranks * sizeof *offers);

    if (h == NULL || offers == NULL) {
        mem->put(mem->ctx, h);
        mem->put(mem->ctx, offers);
        return BASE_FAIL(BASE_NO_MEMORY, "comm of %d threads", n_ranks);
    }
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&h->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&h->lock, NULL);
    h->n_ranks = n_ranks;
    h->n_free_turns = n_turns;
    h->offers = offers;
    *hall_out = h;
    return BASE_OK;
}

base_status comm_threads_create(int32_t n_ranks, int32_t n_turns, const base_alloc *mem,
                                comm **comms_out)
{
    base_status st = BASE_OK;
    hall *h = NULL;
    int32_t n = 0;

    if (n_ranks < 1 || n_turns < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "comm of %d threads, %d at once: at least 1 each", n_ranks,
                         n_turns);
    }
    BASE_TRY(st, out, hall_create(n_ranks, n_turns, mem, &h));
    for (; n < n_ranks && st == BASE_OK; n++) {
        thread_comm *c = mem->get(mem->ctx, sizeof *c);
        if (c == NULL) {
            st = BASE_FAIL(BASE_NO_MEMORY, "comm of thread %d of %d", n, n_ranks);
            break;
        }
        c->base = (comm){.backend = &threads_backend, .mem = *mem, .rank = n, .size = n_ranks};
        c->hall = h;
        comms_out[n] = &c->base;
        h->n_comms++;
    }
    if (st != BASE_OK) {
        for (int32_t i = 0; i < n; i++) {
            mem->put(mem->ctx, comms_out[i]);
            comms_out[i] = NULL;
        }
        hall_free(h, mem);
    }
out:
    return st;
}

void comm_threads_enter(comm *c)
{
    hall *h = ((thread_comm *)c)->hall;
    (void)pthread_mutex_lock(&h->lock);
    take_turn(h);
    (void)pthread_mutex_unlock(&h->lock);
}

void comm_threads_leave(comm *c)
{
    hall *h = ((thread_comm *)c)->hall;
    (void)pthread_mutex_lock(&h->lock);
    h->broken = true;
    give_turn(h);
    (void)pthread_mutex_unlock(&h->lock);
}

int64_t comm_threads_take_waited(comm *c)
{
    thread_comm *t = (thread_comm *)c;
    const int64_t ns = t->waited_ns;
    t->waited_ns = 0;
    return ns;
}
