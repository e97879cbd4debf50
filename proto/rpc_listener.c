#include "proto/rpc_listener.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/rpc_address.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MAX_SOCKETS     8 /* a name rarely has more addresses */
#define BACKLOG         512
#define SHORT_PAUSE_MS  20 /* after an accept that found no descriptor */
#define WARN_EVERY_US   10000000
#define ACCEPTS_AT_ONCE 64

struct rpc_listener {
    int fds[MAX_SOCKETS];
    int n_fds;
    int wake_fd; /* -1 until made */
    int32_t port;
    char unix_path[RPC_MAX_PATH_BYTES + 1]; /* "" for TCP; removed at the end */
    rpc_connection_fn *on_connection;
    void *ctx;
    pthread_t thread;
    bool has_thread;
    int64_t warned_us;
};

/* ---- accepting ---- */

/* Returns false when descriptors or memory have run out: the caller pauses. */
static bool accept_some(rpc_listener *listener, int fd)
{
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        const int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (peer >= 0) {
            const int one = 1;
            /* Fails on unix sockets, which have no such delay. */
            (void)setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            listener->on_connection(listener->ctx, peer);
            continue;
        }
        switch (errno) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            if (listener->warned_us == 0 || base_now_us() - listener->warned_us >= WARN_EVERY_US) {
                listener->warned_us = base_now_us();
                BASE_WARN("rpc listener port %d: cannot accept: %s", (int)listener->port,
                          strerror(errno));
            }
            return false;
        case EAGAIN: return true;
        default: break; /* that one connection died while it waited */
        }
    }
    return true;
}

static void *accept_main(void *arg)
{
    rpc_listener *listener = arg;
    struct pollfd polls[MAX_SOCKETS + 1];
    bool paused = false;

    (void)pthread_setname_np(pthread_self(), "rpc-accept");
    polls[0] = (struct pollfd){.fd = listener->wake_fd, .events = POLLIN};
    for (int i = 0; i < listener->n_fds; i++) {
        polls[1 + i] = (struct pollfd){.fd = listener->fds[i], .events = POLLIN};
    }
    for (;;) {
        /* A pause still wakes for the end, but not for connections. */
        const nfds_t n_polls = paused ? 1 : (nfds_t)(1 + listener->n_fds);
        const int n_ready = poll(polls, n_polls, paused ? SHORT_PAUSE_MS : -1);
        if (n_ready > 0 && polls[0].revents != 0) {
            return NULL;
        }
        paused = false;
        for (int i = 0; n_ready > 0 && i < listener->n_fds; i++) {
            if (polls[1 + i].revents != 0 && !accept_some(listener, listener->fds[i])) {
                paused = true;
            }
        }
    }
}

/* ---- binding ---- */

static base_status keep_socket(rpc_listener *listener, int fd, const char *text)
{
    if (listen(fd, BACKLOG) != 0) {
        const int reason = errno;
        (void)close(fd);
        return BASE_FAIL(BASE_IO, "cannot listen on '%s': %s", text, strerror(reason));
    }
    listener->fds[listener->n_fds++] = fd;
    return BASE_OK;
}

static base_status bind_tcp(rpc_listener *listener, const struct addrinfo *info, const char *text,
                            int *reason_out)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } name;
    socklen_t n_bytes = info->ai_addrlen;
    const int on = 1;
    const int off = 0;

    const int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        *reason_out = errno;
        return BASE_OK;
    }
    memset(&name, 0, sizeof name);
    memcpy(&name, info->ai_addr, n_bytes < sizeof name ? n_bytes : sizeof name);
    /* Each address of one name gets the same port, also when the first was a free choice. */
    if (info->ai_family == AF_INET) {
        name.v4.sin_port = htons((uint16_t)listener->port);
    } else {
        name.v6.sin6_port = htons((uint16_t)listener->port);
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off); /* [::] serves both */
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, &name.any, n_bytes) != 0) {
        *reason_out = errno;
        (void)close(fd);
        /* Half a name must not be served silently while another process has the rest. */
        return *reason_out == EADDRINUSE
                   ? BASE_FAIL(BASE_IO, "cannot listen on '%s': %s", text, strerror(EADDRINUSE))
                   : BASE_OK;
    }
    if (getsockname(fd, &name.any, &n_bytes) == 0) {
        listener->port =
            ntohs(name.any.sa_family == AF_INET ? name.v4.sin_port : name.v6.sin6_port);
    }
    return keep_socket(listener, fd, text);
}

/* Some hosts files name one address twice. */
static bool is_repeated(const struct addrinfo *list, const struct addrinfo *info)
{
    for (const struct addrinfo *other = list; other != info; other = other->ai_next) {
        if (other->ai_addrlen == info->ai_addrlen &&
            memcmp(other->ai_addr, info->ai_addr, info->ai_addrlen) == 0) {
            return true;
        }
    }
    return false;
}

static base_status bind_all(rpc_listener *listener, const rpc_address *address, const char *text)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    base_status st = BASE_OK;
    int reason = EADDRNOTAVAIL;

    const int rc = getaddrinfo(address->host, NULL, &hints, &list);
    if (rc != 0) {
        return BASE_FAIL(BASE_IO, "cannot listen on '%s': %s", text, gai_strerror(rc));
    }
    listener->port = address->port;
    for (const struct addrinfo *info = list; info != NULL && st == BASE_OK; info = info->ai_next) {
        if ((info->ai_family == AF_INET || info->ai_family == AF_INET6) &&
            listener->n_fds < MAX_SOCKETS && !is_repeated(list, info)) {
            st = bind_tcp(listener, info, text, &reason);
        }
    }
    freeaddrinfo(list);
    if (st == BASE_OK && listener->n_fds == 0) {
        st = BASE_FAIL(BASE_IO, "cannot listen on '%s': %s", text, strerror(reason));
    }
    return st;
}

static base_status bind_unix(rpc_listener *listener, const rpc_address *address, const char *text)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    memcpy(name.sun_path, address->path, sizeof address->path);

    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return BASE_FAIL(BASE_IO, "cannot listen on '%s': %s", text, strerror(errno));
    }
    int rc = bind(fd, (const struct sockaddr *)&name, sizeof name);
    if (rc != 0 && errno == EADDRINUSE) {
        /* A killed server leaves its file behind; nobody answers on that one. */
        const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        const bool stale = probe >= 0 &&
                           connect(probe, (const struct sockaddr *)&name, sizeof name) != 0 &&
                           errno == ECONNREFUSED;
        if (probe >= 0) {
            (void)close(probe);
        }
        errno = EADDRINUSE;
        if (stale && unlink(address->path) == 0) {
            rc = bind(fd, (const struct sockaddr *)&name, sizeof name);
        }
    }
    if (rc != 0) {
        const int reason = errno;
        (void)close(fd);
        return BASE_FAIL(BASE_IO, "cannot listen on '%s': %s", text, strerror(reason));
    }
    memcpy(listener->unix_path, address->path, sizeof listener->unix_path);
    return keep_socket(listener, fd, text);
}

base_status rpc_listener_create(const char *listen, rpc_connection_fn *on_connection, void *ctx,
                                rpc_listener **listener_out)
{
    base_status st = BASE_OK;
    rpc_listener *listener = NULL;
    rpc_address address;

    BASE_TRY(st, out, rpc_address_parse(listen, &address));
    listener = base_heap.get(base_heap.ctx, sizeof *listener);
    if (listener == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "rpc listener");
        goto out;
    }
    listener->on_connection = on_connection;
    listener->ctx = ctx;
    listener->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (listener->wake_fd < 0) {
        st = BASE_FAIL(BASE_IO, "cannot listen on '%s': %s", listen, strerror(errno));
        goto out;
    }
    BASE_TRY(st, out,
             address.is_unix ? bind_unix(listener, &address, listen)
                             : bind_all(listener, &address, listen));
    const int rc = pthread_create(&listener->thread, NULL, accept_main, listener);
    if (rc != 0) {
        st = BASE_FAIL(BASE_IO, "cannot listen on '%s': no thread: %s", listen, strerror(rc));
        goto out;
    }
    listener->has_thread = true;
    *listener_out = listener;
    listener = NULL;

out:
    rpc_listener_destroy(listener);
    return st;
}

int32_t rpc_listener_port(const rpc_listener *listener)
{
    return listener->port;
}

void rpc_listener_destroy(rpc_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    if (listener->has_thread) {
        (void)eventfd_write(listener->wake_fd, 1);
        (void)pthread_join(listener->thread, NULL);
    }
    if (listener->unix_path[0] != '\0') {
        (void)unlink(listener->unix_path);
    }
    for (int i = 0; i < listener->n_fds; i++) {
        (void)close(listener->fds[i]);
    }
    if (listener->wake_fd >= 0) {
        (void)close(listener->wake_fd);
    }
    base_heap.put(base_heap.ctx, listener);
}
