#include "proto/rpc_services.h"

#include <string.h>

static base_status service_of(const char *path, base_view *name_out)
{
    const char *slash = path == NULL || path[0] != '/' ? NULL : strchr(path + 1, '/');
    if (slash == NULL || slash == path + 1 || slash[1] == '\0') {
        return BASE_FAIL(BASE_BAD_INPUT, "method path '%s', want /SERVICE/METHOD",
                         path == NULL ? "(null)" : path);
    }
    *name_out = (base_view){.data = path + 1, .n_bytes = (size_t)(slash - path - 1)};
    return BASE_OK;
}

base_status rpc_services_init(const rpc_method *methods, size_t n_methods, const base_alloc *mem,
                              rpc_services *services_out)
{
    base_status st = BASE_OK;
    rpc_services services = {.mem = *mem};

    if (n_methods > 0) {
        services.names = mem->get(mem->ctx, n_methods * sizeof services.names[0]);
        if (services.names == NULL) {
            st = BASE_FAIL(BASE_NO_MEMORY, "names of %zu services", n_methods);
            goto out;
        }
    }
    for (size_t i = 0; i < n_methods; i++) {
        base_view name = {NULL, 0};
        BASE_TRY(st, out, service_of(methods[i].path, &name));
        if (rpc_services_has(&services, name)) {
            continue;
        }
        char *copy = mem->get(mem->ctx, name.n_bytes);
        if (copy == NULL) {
            st = BASE_FAIL(BASE_NO_MEMORY, "service name of %zu bytes", name.n_bytes);
            goto out;
        }
        memcpy(copy, name.data, name.n_bytes);
        services.names[services.n_names++] = (base_view){.data = copy, .n_bytes = name.n_bytes};
    }
    *services_out = services;
    services = (rpc_services){.mem = *mem};

out:
    rpc_services_reset(&services);
    return st;
}

void rpc_services_reset(rpc_services *services)
{
    if (services->names == NULL) {
        return;
    }
    for (size_t i = 0; i < services->n_names; i++) {
        services->mem.put(services->mem.ctx, (void *)services->names[i].data);
    }
    services->mem.put(services->mem.ctx, services->names);
    services->names = NULL;
    services->n_names = 0;
}

bool rpc_services_has(const rpc_services *services, base_view name)
{
    for (size_t i = 0; i < services->n_names; i++) {
        if (base_view_equal(services->names[i], name)) {
            return true;
        }
    }
    return false;
}
