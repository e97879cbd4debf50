#include "proto/rpc_address.h"

#include <string.h>

static bool parse_port(const char *digits, int32_t *port_out)
{
    int32_t port = 0;
    if (digits[0] == '\0' || strlen(digits) > 5) {
        return false;
    }
    for (const char *p = digits; *p != '\0'; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }
        port = 10 * port + (*p - '0');
    }
    *port_out = port;
    return port <= 65535;
}

base_status rpc_address_parse(const char *text, rpc_address *address_out)
{
    rpc_address address = {.is_unix = false};
    if (text == NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "no address, want HOST:PORT or unix:PATH");
    }
    if (strncmp(text, "unix:", 5) == 0) {
        const size_t n_bytes = strlen(text + 5);
        if (n_bytes == 0 || n_bytes > RPC_MAX_PATH_BYTES) {
            return BASE_FAIL(BASE_BAD_INPUT, "address '%s': path of %zu bytes, allowed 1..%d", text,
                             n_bytes, RPC_MAX_PATH_BYTES);
        }
        address.is_unix = true;
        memcpy(address.path, text + 5, n_bytes);
        *address_out = address;
        return BASE_OK;
    }

    const char *colon = strrchr(text, ':');
    if (colon == NULL || !parse_port(colon + 1, &address.port)) {
        return BASE_FAIL(BASE_BAD_INPUT, "address '%s': want HOST:PORT with a port of 0..65535",
                         text);
    }
    const char *host = text;
    size_t n_bytes = (size_t)(colon - text);
    const bool bracketed = n_bytes >= 2 && host[0] == '[' && host[n_bytes - 1] == ']';
    if (bracketed) {
        host++;
        n_bytes -= 2;
    }
    if (n_bytes == 0 || n_bytes > RPC_MAX_HOST_BYTES) {
        return BASE_FAIL(BASE_BAD_INPUT, "address '%s': host of %zu bytes, allowed 1..%d", text,
                         n_bytes, RPC_MAX_HOST_BYTES);
    }
    if (!bracketed && memchr(host, ':', n_bytes) != NULL) {
        return BASE_FAIL(BASE_BAD_INPUT, "address '%s': an IPv6 host needs brackets", text);
    }
    memcpy(address.host, host, n_bytes);
    *address_out = address;
    return BASE_OK;
}
