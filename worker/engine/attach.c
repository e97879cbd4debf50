#include "worker/engine/attach.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/rpc.h"
#include "worker/engine/command_queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MOST_MS  2000
#define FAREWELL_MS      300
#define LOOK_MS          100 /* how often the dialler looks at heartbeats */
#define REPEAT_LOAD_MS   400 /* the coordinator wants one every 500 ms */
#define MAX_UNSENT       8192
#define MAX_EVENT_BYTES  ((size_t)1 << 20)

struct attach {
    base_alloc mem;
    char *coordinator;
    rpc_channel *channel;
    base_bytes hello;
    pthread_t dialler;
    bool dialler_runs;

    pthread_mutex_t mutex;      /* guards all below */
    pthread_cond_t for_dialler; /* the stream ended, or closing */
    pthread_cond_t for_engine;  /* a command came */
    bool closing;
    rpc_call *call; /* the stream; NULL between streams */
    bool welcomed;
    bool ended;
    bool hung_up;
    bool refused; /* for good: this group does not fit what the coordinator serves */
    char refusal[RPC_MAX_STATUS_BYTES + 1];
    int64_t heard_us;
    int64_t load_sent_us;
    command_queue commands;
    base_bytes event;     /* being sent */
    base_bytes last_load; /* encoded */
};

static void lock(attach *a)
{
    (void)pthread_mutex_lock(&a->mutex);
}

static void unlock(attach *a)
{
    (void)pthread_mutex_unlock(&a->mutex);
}

/* Waits for a signal at most until until_us of base_now_us(); false when that has passed. */
static bool wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until_us)
{
    const struct timespec at = {.tv_sec = (time_t)(until_us / 1000000),
                                .tv_nsec = (long)(until_us % 1000000) * 1000};
    return pthread_cond_timedwait(cond, mutex, &at) != ETIMEDOUT;
}

/* ---- under the mutex ---- */

static void hang_up(attach *a)
{
    if (a->call != NULL && !a->hung_up) {
        a->hung_up = true;
        rpc_client_cancel(a->call);
    }
}

static void send_bytes(attach *a, base_view bytes)
{
    if (rpc_call_send(a->call, bytes) == BASE_EXHAUSTED) {
        BASE_WARN("the coordinator does not read: hanging up with %d events unsent", MAX_UNSENT);
        hang_up(a);
    }
}

static void send_load(attach *a)
{
    if (a->last_load.n_bytes > 0) {
        a->load_sent_us = base_now_us();
        send_bytes(a, base_bytes_view(&a->last_load));
    }
}

static void take_welcome(attach *a, const group_down *down)
{
    if (down->protocol != GROUP_PROTOCOL) {
        BASE_ERROR("coordinator speaks protocol %d, this worker %d", down->protocol,
                   GROUP_PROTOCOL);
        hang_up(a);
        return;
    }
    a->welcomed = true;
    BASE_INFO("attached to coordinator %s", a->coordinator);
    send_load(a);
    (void)pthread_cond_signal(&a->for_dialler);
}

/* ---- handlers, on rpc's threads ---- */

static void on_message(void *ctx, rpc_call *call, base_view message)
{
    attach *a = ctx;
    group_down *down = NULL;
    (void)call;

    const base_status st = group_down_decode(message, &a->mem, &down);
    lock(a);
    a->heard_us = base_now_us();
    if (st != BASE_OK) {
        BASE_ERROR("message of the coordinator: %s; hanging up", base_last_error());
        hang_up(a);
    } else if (!a->welcomed && down->kind != GROUP_DOWN_WELCOME) {
        BASE_ERROR("the coordinator's first message is no Welcome; hanging up");
        hang_up(a);
    } else if (down->kind == GROUP_DOWN_WELCOME) {
        take_welcome(a, down);
    } else if (down->kind != GROUP_DOWN_PING && !a->hung_up) {
        const base_status pushed = command_queue_push(&a->commands, down);
        if (pushed == BASE_OK) {
            down = NULL; /* ownership moved */
            (void)pthread_cond_signal(&a->for_engine);
        } else {
            BASE_ERROR("command of the coordinator: %s; hanging up", base_status_text(pushed));
            hang_up(a);
        }
    }
    unlock(a);
    a->mem.put(a->mem.ctx, down);
}

static void on_status(void *ctx, rpc_call *call, rpc_code code, const char *text)
{
    attach *a = ctx;
    (void)call;

    lock(a);
    a->ended = true;
    if (a->closing) {
        BASE_DEBUG("stream to the coordinator ends: %s", rpc_code_name(code));
    } else if (code == RPC_FAILED_PRECONDITION && !a->welcomed) {
        a->refused = true;
        (void)snprintf(a->refusal, sizeof a->refusal, "%s", text);
        (void)pthread_cond_signal(&a->for_engine);
    } else if (a->welcomed) {
        BASE_WARN("lost the coordinator (%s: %s); dialling %s again", rpc_code_name(code), text,
                  a->coordinator);
    } else {
        BASE_DEBUG("dialling %s: %s: %s", a->coordinator, rpc_code_name(code), text);
    }
    (void)pthread_cond_signal(&a->for_dialler);
    unlock(a);
}

/* ---- the dialler ---- */

/* Starts the stream; the mutex is held, so handlers wait until a->call is set. */
static base_status dial(attach *a)
{
    const rpc_client_handlers handlers = {
        .ctx = a, .on_message = on_message, .on_status = on_status};
    a->welcomed = false;
    a->ended = false;
    a->hung_up = false;
    a->heard_us = base_now_us();
    const base_status st =
        rpc_client_start(a->channel, ATTACH_PATH, INT64_MAX, MAX_UNSENT, &handlers, &a->call);
    return st == BASE_OK ? rpc_call_send(a->call, base_bytes_view(&a->hello)) : st;
}

/* Looks after the stream until it ends or the worker closes. */
static void attend(attach *a)
{
    while (!a->ended && !a->closing) {
        const int64_t now_us = base_now_us();
        if (a->welcomed && now_us - a->load_sent_us >= (int64_t)REPEAT_LOAD_MS * 1000) {
            send_load(a);
        }
        if (!a->hung_up && now_us - a->heard_us >= (int64_t)ATTACH_SILENCE_MS * 1000) {
            BASE_DEBUG("coordinator silent for %d ms", ATTACH_SILENCE_MS);
            hang_up(a);
        }
        (void)wait_until(&a->for_dialler, &a->mutex, now_us + (int64_t)LOOK_MS * 1000);
    }
}

static void say_farewell(attach *a)
{
    const int64_t until_us = base_now_us() + (int64_t)FAREWELL_MS * 1000;
    if (a->call == NULL) {
        return;
    }
    rpc_client_half_close(a->call);
    while (!a->ended && rpc_call_n_queued(a->call) > 0 && base_now_us() < until_us) {
        const int64_t look_us = base_now_us() + 5000;
        (void)wait_until(&a->for_dialler, &a->mutex, look_us < until_us ? look_us : until_us);
    }
    /* The last bytes are with the network; the coordinator ends the stream when it has read them. */
    while (!a->ended && a->welcomed && wait_until(&a->for_dialler, &a->mutex, until_us)) {
    }
    hang_up(a);
}

/* Unlocked while it gives the call back: that may run code of rpc. */
static void drop_stream(attach *a)
{
    rpc_call *call = a->call;
    a->call = NULL;
    a->welcomed = false;
    command_queue_lose(&a->commands);
    (void)pthread_cond_signal(&a->for_engine);
    if (call != NULL) {
        unlock(a);
        rpc_call_unref(call);
        lock(a);
    }
}

static void *run_dialler(void *ctx)
{
    attach *a = ctx;
    int64_t backoff_ms = BACKOFF_FIRST_MS;
    bool told = false; /* this outage is in the log */

    lock(a);
    while (!a->closing && !a->refused) {
        if (dial(a) != BASE_OK) {
            hang_up(a);
        }
        if (a->call != NULL) { /* its status comes in any case, and is not the next stream's */
            attend(a);
        }
        const bool was_up = a->welcomed;
        if (a->closing) {
            say_farewell(a);
        }
        drop_stream(a);
        if (was_up) {
            backoff_ms = BACKOFF_FIRST_MS;
        } else if (!told && !a->closing && !a->refused) {
            BASE_WARN("coordinator %s does not answer; dialling until it does", a->coordinator);
        }
        told = true;
        const int64_t until_us = base_now_us() + backoff_ms * 1000;
        while (!a->closing && !a->refused && wait_until(&a->for_dialler, &a->mutex, until_us)) {
        }
        backoff_ms = backoff_ms * 2 < BACKOFF_MOST_MS ? backoff_ms * 2 : BACKOFF_MOST_MS;
    }
    unlock(a);
    return NULL;
}

/* ---- engine_io, on the step loop's thread ---- */

static base_status next(void *ctx, int64_t wait_us, const group_down **down_out)
{
    attach *a = ctx;
    const int64_t until_us = base_now_us() + wait_us;
    base_status st = BASE_OK;

    lock(a);
    const group_down *down = command_queue_pop(&a->commands);
    while (down == NULL && wait_us > 0 && !a->refused &&
           wait_until(&a->for_engine, &a->mutex, until_us)) {
        down = command_queue_pop(&a->commands);
    }
    if (down == NULL && a->refused) {
        st = BASE_FAIL(BASE_BAD_INPUT, "coordinator %s refuses this group: %s", a->coordinator,
                       a->refusal);
    }
    unlock(a);
    *down_out = down;
    return st;
}

static void emit(void *ctx, const group_up *up)
{
    attach *a = ctx;
    base_bytes *out = up->kind == GROUP_UP_LOAD ? &a->last_load : &a->event;

    lock(a);
    const bool muted = command_queue_is_muted(&a->commands);
    if (!muted && (up->kind == GROUP_UP_ENDED || up->kind == GROUP_UP_REFUSED)) {
        command_queue_forget(&a->commands, up->seq);
    }
    base_bytes_drop_front(out, out->n_bytes);
    if (group_up_encode(up, out) != BASE_OK) {
        BASE_ERROR("event for the coordinator: %s; hanging up", base_last_error());
        hang_up(a);
    } else if (a->call != NULL && a->welcomed && !a->ended && !muted) {
        if (up->kind == GROUP_UP_LOAD) {
            send_load(a);
        } else {
            send_bytes(a, base_bytes_view(out));
        }
    }
    unlock(a);
}

engine_io attach_io(attach *a)
{
    const engine_io io = {.ctx = a, .next = next, .emit = emit};
    return io;
}

/* ---- life ---- */

static base_status init_locks(attach *a)
{
    pthread_condattr_t attr;
    const bool ok = pthread_mutex_init(&a->mutex, NULL) == 0 && pthread_condattr_init(&attr) == 0 &&
                    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0 &&
                    pthread_cond_init(&a->for_dialler, &attr) == 0 &&
                    pthread_cond_init(&a->for_engine, &attr) == 0;
    return ok ? BASE_OK : BASE_FAIL(BASE_NO_MEMORY, "locks of the attach stream");
}

base_status attach_create(const char *coordinator, const group_hello *hello, const base_alloc *mem,
                          attach **attach_out)
{
    base_status st = BASE_OK;
    const group_up up = {.kind = GROUP_UP_HELLO, .hello = *hello};
    const size_t n_name = strlen(coordinator) + 1;
    attach *a = mem->get(mem->ctx, sizeof *a);
    if (a == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "attach stream");
        goto out;
    }
    a->mem = *mem;
    base_bytes_init(&a->hello, RPC_MAX_MESSAGE_BYTES, mem);
    base_bytes_init(&a->event, MAX_EVENT_BYTES, mem);
    base_bytes_init(&a->last_load, MAX_EVENT_BYTES, mem);
    command_queue_init(&a->commands, mem);
    BASE_TRY(st, out, init_locks(a));
    a->coordinator = mem->get(mem->ctx, n_name);
    if (a->coordinator == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "attach stream");
        goto out;
    }
    memcpy(a->coordinator, coordinator, n_name);
    BASE_TRY(st, out, group_up_encode(&up, &a->hello));
    BASE_TRY(st, out, rpc_channel_create(coordinator, &a->channel));
    if (pthread_create(&a->dialler, NULL, run_dialler, a) != 0) {
        st = BASE_FAIL(BASE_NO_MEMORY, "thread of the attach stream");
        goto out;
    }
    a->dialler_runs = true;
    *attach_out = a;
    a = NULL;

out:
    attach_destroy(a);
    return st;
}

void attach_destroy(attach *a)
{
    if (a == NULL) {
        return;
    }
    const base_alloc mem = a->mem;
    if (a->dialler_runs) {
        lock(a);
        a->closing = true;
        (void)pthread_cond_signal(&a->for_dialler);
        unlock(a);
        (void)pthread_join(a->dialler, NULL);
    }
    rpc_channel_destroy(a->channel); /* no handler runs after this */
    command_queue_reset(&a->commands);
    base_bytes_reset(&a->last_load);
    base_bytes_reset(&a->event);
    base_bytes_reset(&a->hello);
    mem.put(mem.ctx, a->coordinator);
    (void)pthread_cond_destroy(&a->for_engine);
    (void)pthread_cond_destroy(&a->for_dialler);
    (void)pthread_mutex_destroy(&a->mutex);
    mem.put(mem.ctx, a);
}
