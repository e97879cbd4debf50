#include "coordinator/state.h"

#include "base/clock.h"
#include "base/log.h"

#include <string.h>
#include <time.h>

#define TICK_US          100000
#define CLOSE_MS         500 /* for statuses to reach their clients at the end */
#define N_POLLERS        4
#define N_ATTACH_POLLERS 2 /* one may read a tokenizer */

void coord_lock(coordinator *c)
{
    (void)pthread_mutex_lock(&c->mutex);
}

void coord_unlock(coordinator *c)
{
    (void)pthread_mutex_unlock(&c->mutex);
}

/* ---- the timer ---- */

static void end_late_requests(coordinator *c, int64_t now_us)
{
    coord_room rooms[COORD_MAX_GROUPS];
    coord_ticket *t = NULL;

    while ((t = coord_queue_expired(&c->queue, now_us)) != NULL) {
        coord_end_request(c, (coord_request *)t, COORD_END_CANCELLED, RPC_DEADLINE_EXCEEDED,
                          "the deadline passed in the queue");
    }
    const int32_t n_rooms = coord_rooms(c, rooms);
    while ((t = coord_queue_stranded(&c->queue, rooms, n_rooms, c->last_loss_us, now_us,
                                     c->wait_for_group_us)) != NULL) {
        coord_end_request(c, (coord_request *)t, COORD_END_REFUSED, RPC_UNAVAILABLE,
                          "no worker group came back in time");
    }
}

static void watch_group(coordinator *c, coord_group *group, int64_t now_us)
{
    const group_down ping = {.kind = GROUP_DOWN_PING};

    coord_finish_stopped(c, group, now_us);
    if (now_us - group->pinged_us >= COORD_PING_US) {
        group->pinged_us = now_us;
        if (coord_send_down(c, group, &ping) != BASE_OK) {
            BASE_DEBUG("a ping was not sent; silence will tell");
        }
    }
    if (coord_group_is_silent(group, now_us)) {
        coord_lose_group(c, group, RPC_UNAVAILABLE, "nothing was heard for 2 s");
    }
}

static void tick(coordinator *c)
{
    const int64_t now_us = base_now_us();

    end_late_requests(c, now_us);
    coord_group *next = NULL;
    for (coord_group *group = c->groups; group != NULL; group = next) {
        next = group->next;
        watch_group(c, group, now_us);
    }
    coord_dispatch(c);
}

static void *timer_main(void *arg)
{
    coordinator *c = arg;
    struct timespec at;

    (void)pthread_setname_np(pthread_self(), "coord-timer");
    coord_lock(c);
    while (!c->stopping) {
        (void)clock_gettime(CLOCK_MONOTONIC, &at);
        at.tv_nsec += TICK_US * 1000L;
        at.tv_sec += at.tv_nsec / 1000000000L;
        at.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&c->wake, &c->mutex, &at);
        tick(c);
    }
    coord_unlock(c);
    return NULL;
}

/* ---- life ---- */

static base_status check_options(const coord_options *options)
{
    if (options->max_waiting < 1 || options->max_waiting > COORD_MAX_WAITING) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_waiting %d, allowed 1..%d", (int)options->max_waiting,
                         COORD_MAX_WAITING);
    }
    if (options->wait_for_group_ms < 0 || options->wait_for_group_ms > INT64_MAX / 1000) {
        return BASE_FAIL(BASE_BAD_INPUT, "wait_for_group_ms %lld, allowed 0 and more",
                         (long long)options->wait_for_group_ms);
    }
    return BASE_OK;
}

static void init_locks(coordinator *c)
{
    pthread_condattr_t monotonic;

    (void)pthread_mutex_init(&c->mutex, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&c->wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
}

base_status coordinator_create(const coord_options *options, const base_alloc *mem,
                               coordinator **coordinator_out)
{
    base_status st = BASE_OK;
    coordinator *c = NULL;
    rpc_method methods[COORD_N_INFERENCE_METHODS];

    BASE_TRY(st, out, check_options(options));
    c = mem->get(mem->ctx, sizeof *c);
    if (c == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "coordinator");
        goto out;
    }
    c->mem = *mem;
    c->wait_for_group_us = options->wait_for_group_ms * 1000;
    coord_queue_init(&c->queue, options->max_waiting);
    init_locks(c);

    const rpc_server_options for_clients = {.listen = options->listen,
                                            .n_pollers = N_POLLERS,
                                            .max_queued = COORD_CLIENT_QUEUED,
                                            .reflection = true,
                                            .health = true};
    const rpc_server_options for_groups = {
        .listen = options->attach, .n_pollers = N_ATTACH_POLLERS, .max_queued = COORD_GROUP_QUEUED};
    coord_inference_methods(c, methods);
    BASE_TRY(st, out,
             rpc_server_create(&for_clients, methods, COORD_N_INFERENCE_METHODS, &c->clients));
    const rpc_method attach = coord_group_method(c);
    BASE_TRY(st, out, rpc_server_create(&for_groups, &attach, 1, &c->attach));
    const int rc = pthread_create(&c->timer, NULL, timer_main, c);
    if (rc != 0) {
        st = BASE_FAIL(BASE_IO, "no thread for the timer: %s", strerror(rc));
        goto out;
    }
    c->timer_runs = true;
    *coordinator_out = c;
    c = NULL;

out:
    coordinator_destroy(c);
    return st;
}

int32_t coordinator_listen_port(const coordinator *c)
{
    return rpc_server_port(c->clients);
}

int32_t coordinator_attach_port(const coordinator *c)
{
    return rpc_server_port(c->attach);
}

void coordinator_drain(coordinator *c)
{
    coord_lock(c);
    c->draining = true;
    BASE_INFO("draining: %d requests are accepted and go on", (int)c->n_live);
    rpc_server_set_serving(c->clients, false);
    coord_unlock(c);
}

int32_t coordinator_live_requests(coordinator *c)
{
    coord_lock(c);
    const int32_t n_live = c->n_live;
    coord_unlock(c);
    return n_live;
}

/* Mutex held. */
static void end_everything(coordinator *c)
{
    static const char text[] = "the coordinator is shutting down";

    c->draining = true;
    while (c->queue.first != NULL) {
        coord_end_request(c, (coord_request *)c->queue.first, COORD_END_REFUSED, RPC_UNAVAILABLE,
                          text);
    }
    for (coord_group *group = c->groups; group != NULL; group = group->next) {
        for (int32_t i = 0; i < group->n_slots; i++) {
            if (group->slots[i].request != NULL) {
                coord_end_request(c, group->slots[i].request, COORD_END_REFUSED, RPC_UNAVAILABLE,
                                  text);
            }
        }
    }
}

void coordinator_destroy(coordinator *c)
{
    if (c == NULL) {
        return;
    }
    const base_alloc mem = c->mem;
    coord_lock(c);
    c->stopping = true;
    end_everything(c);
    for (coord_group *group = c->groups; group != NULL; group = group->next) {
        rpc_call_finish(group->call, RPC_UNAVAILABLE, "the coordinator is shutting down");
    }
    (void)pthread_cond_signal(&c->wake);
    coord_unlock(c);
    if (c->timer_runs) {
        (void)pthread_join(c->timer, NULL);
    }
    rpc_server_destroy(c->attach,
                       CLOSE_MS); /* ends the groups, which still use the clients' side */
    rpc_server_destroy(c->clients, CLOSE_MS);
    coord_model_destroy(c->model);
    (void)pthread_cond_destroy(&c->wake);
    (void)pthread_mutex_destroy(&c->mutex);
    mem.put(mem.ctx, c);
}
