#include "proto/health.h"

#include "proto/health.pb-c.h"
#include "proto/rpc_services.h"

#include <pthread.h>
#include <stdint.h>

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;
#define SERVING         GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING     GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define SERVICE_UNKNOWN GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

#define MAX_PACKED_BYTES 16 /* a response holds one small number */

/* One Watch call, from its request to its close. */
typedef struct watcher {
    struct watcher *prev;
    struct watcher *next;
    rpc_call *call; /* borrowed: on_close removes the watcher */
    bool is_known;
    int32_t told; /* the status that the client has; -1 for none */
} watcher;

struct rpc_health {
    rpc_services services;
    base_alloc mem;
    /* Guards the rest.  Held while sending, so that watchers hear of changes in order. */
    pthread_mutex_t mutex;
    watcher *watchers;
    bool serving;
    bool draining;
};

static bool knows(const rpc_health *health, base_view name)
{
    return name.n_bytes == 0 || rpc_services_has(&health->services, name);
}

static base_status send_status(rpc_call *call, serving_status status)
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    uint8_t packed[MAX_PACKED_BYTES];

    response.status = status;
    const size_t n_bytes = grpc__health__v1__health_check_response__pack(&response, packed);
    return rpc_call_send(call, (base_view){.data = (const char *)packed, .n_bytes = n_bytes});
}

/* Ends the call and returns NULL if the message is not a request. */
static Grpc__Health__V1__HealthCheckRequest *unpack(rpc_call *call, base_view message)
{
    Grpc__Health__V1__HealthCheckRequest *request = grpc__health__v1__health_check_request__unpack(
        NULL, message.n_bytes, (const uint8_t *)message.data);
    if (request == NULL) {
        rpc_call_finish(call, RPC_INVALID_ARGUMENT, "not a HealthCheckRequest");
    }
    return request;
}

static base_view service_of(const Grpc__Health__V1__HealthCheckRequest *request)
{
    return (base_view){.data = (const char *)request->service.data,
                       .n_bytes = request->service.len};
}

static void on_check(void *ctx, rpc_call *call, base_view message)
{
    rpc_health *health = ctx;
    Grpc__Health__V1__HealthCheckRequest *request = unpack(call, message);
    if (request == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&health->mutex);
    const bool serving = health->serving;
    (void)pthread_mutex_unlock(&health->mutex);
    if (!knows(health, service_of(request))) {
        rpc_call_finish(call, RPC_NOT_FOUND, "unknown service");
    } else if (send_status(call, serving ? SERVING : NOT_SERVING) == BASE_OK) {
        rpc_call_finish(call, RPC_OK, NULL);
    } else {
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, NULL);
    }
    grpc__health__v1__health_check_request__free_unpacked(request, NULL);
}

/* Sends what the watcher does not know yet; a slow one gets it in on_drained.  mutex is held. */
static void tell(const rpc_health *health, watcher *w)
{
    serving_status status = SERVICE_UNKNOWN;
    if (w->is_known) {
        status = health->serving ? SERVING : NOT_SERVING;
    }
    if (w->told != (int32_t)status && send_status(w->call, status) == BASE_OK) {
        w->told = (int32_t)status;
    }
    if (health->draining) {
        rpc_call_finish(w->call, RPC_UNAVAILABLE, "the server shuts down");
    }
}

static void on_watch(void *ctx, rpc_call *call, base_view message)
{
    rpc_health *health = ctx;
    Grpc__Health__V1__HealthCheckRequest *request = unpack(call, message);
    if (request == NULL) {
        return;
    }
    watcher *w = health->mem.get(health->mem.ctx, sizeof *w);
    if (w == NULL) {
        rpc_call_finish(call, RPC_RESOURCE_EXHAUSTED, "no memory for a watch");
    } else {
        w->call = call;
        w->is_known = knows(health, service_of(request));
        w->told = -1;
        rpc_call_set_user(call, w);
        (void)pthread_mutex_lock(&health->mutex);
        w->next = health->watchers;
        if (w->next != NULL) {
            w->next->prev = w;
        }
        health->watchers = w;
        tell(health, w);
        (void)pthread_mutex_unlock(&health->mutex);
    }
    grpc__health__v1__health_check_request__free_unpacked(request, NULL);
}

static void on_watch_drained(void *ctx, rpc_call *call)
{
    rpc_health *health = ctx;
    watcher *w = rpc_call_user(call);

    (void)pthread_mutex_lock(&health->mutex);
    tell(health, w);
    (void)pthread_mutex_unlock(&health->mutex);
}

static void on_watch_close(void *ctx, rpc_call *call)
{
    rpc_health *health = ctx;
    watcher *w = rpc_call_user(call);

    if (w == NULL) {
        return; /* the call had no good request */
    }
    (void)pthread_mutex_lock(&health->mutex);
    if (w->prev != NULL) {
        w->prev->next = w->next;
    } else {
        health->watchers = w->next;
    }
    if (w->next != NULL) {
        w->next->prev = w->prev;
    }
    (void)pthread_mutex_unlock(&health->mutex);
    health->mem.put(health->mem.ctx, w);
}

static void change(rpc_health *health, bool serving, bool draining)
{
    (void)pthread_mutex_lock(&health->mutex);
    health->draining = health->draining || draining;
    health->serving = serving && !health->draining;
    for (watcher *w = health->watchers; w != NULL; w = w->next) {
        tell(health, w);
    }
    (void)pthread_mutex_unlock(&health->mutex);
}

void rpc_health_set(rpc_health *health, bool serving)
{
    change(health, serving, false);
}

void rpc_health_drain(rpc_health *health)
{
    change(health, false, true);
}

base_status rpc_health_create(const rpc_method *methods, size_t n_methods, const base_alloc *mem,
                              rpc_health **health_out)
{
    base_status st = BASE_OK;
    rpc_health *health = mem->get(mem->ctx, sizeof *health);

    if (health == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "rpc health");
    }
    health->mem = *mem;
    (void)pthread_mutex_init(&health->mutex, NULL);
    BASE_TRY(st, out, rpc_services_init(methods, n_methods, mem, &health->services));
    *health_out = health;
    health = NULL;

out:
    rpc_health_destroy(health);
    return st;
}

void rpc_health_methods(rpc_health *health, rpc_method methods_out[RPC_HEALTH_METHODS])
{
    methods_out[0] = (rpc_method){
        .path = "/grpc.health.v1.Health/Check",
        .ctx = health,
        .on_message = on_check,
    };
    methods_out[1] = (rpc_method){
        .path = "/grpc.health.v1.Health/Watch",
        .ctx = health,
        .on_message = on_watch,
        .on_drained = on_watch_drained,
        .on_close = on_watch_close,
    };
}

void rpc_health_destroy(rpc_health *health)
{
    if (health == NULL) {
        return;
    }
    const base_alloc mem = health->mem;
    rpc_services_reset(&health->services);
    (void)pthread_mutex_destroy(&health->mutex);
    mem.put(mem.ctx, health);
}
