/* NCCL's calls do not block: they return "in progress" and are asked about until they are done or a deadline passes.  A
 * lock keeps the thread that watches from asking meanwhile, which NCCL does not allow. */
#include "base/clock.h"
#include "base/log.h"
#include "kernels/comm/comm_nccl_state.h"
#include "kernels/cuda/cuda_check.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define CREATE_TIMEOUT_MS  60000 /* all ranks have come so far, or will not; of windows too */
#define DESTROY_TIMEOUT_MS 2000
#define YIELDS             2000 /* a call is usually handed to the stream within some 50 us */
#define NAP_US             100

static base_status lost(const nccl_comm *n, const char *what, ncclResult_t r)
{
    return BASE_FAIL(BASE_PEER_LOST, "%s: NCCL's %s: %s (%s)", n->who, what, ncclGetErrorString(r),
                     n->handle == NULL ? "no communicator" : ncclGetLastError(n->handle));
}

/* r: what the call returned; success too may mean that it goes on (of windows).  The lock is held, or the comm is not
 * shown to another thread yet. */
static base_status finish(const nccl_comm *n, const char *what, ncclResult_t r, int64_t timeout_ms)
{
    const int64_t begun = base_now_us();
    for (int polls = 0; r == ncclSuccess || r == ncclInProgress; polls++) {
        const ncclResult_t asked = ncclCommGetAsyncError(n->handle, &r);
        if (asked == ncclSuccess && r == ncclSuccess) {
            return BASE_OK;
        }
        r = asked == ncclSuccess ? r : asked;
        if (polls < YIELDS) {
            sched_yield();
            continue;
        }
        if ((base_now_us() - begun) / 1000 >= timeout_ms) {
            return BASE_FAIL(BASE_PEER_LOST, "%s: NCCL's %s: not all ranks answered in %lld ms",
                             n->who, what, (long long)timeout_ms);
        }
        base_sleep_us(NAP_US);
    }
    return lost(n, what, r);
}

/* ---- collectives ---- */

static base_status nccl_broadcast(comm *c, void *buf, size_t n_bytes, int32_t root,
                                  int64_t timeout_ms)
{
    base_status st = BASE_OK;
    nccl_comm *n = (nccl_comm *)c;
    void *at = NULL;

    BASE_TRY(st, out, cuda_share_find(n->ctx, "broadcast", buf, n_bytes, &at));
    (void)pthread_mutex_lock(&n->lock);
    st = finish(n, "broadcast",
                ncclBroadcast(at, at, n_bytes, ncclInt8, root, n->handle, n->stream), timeout_ms);
    (void)pthread_mutex_unlock(&n->lock);
out:
    return st;
}

static base_status nccl_all_gather(comm *c, const void *mine, void *all, size_t n_bytes,
                                   int64_t timeout_ms)
{
    base_status st = BASE_OK;
    nccl_comm *n = (nccl_comm *)c;
    void *from = NULL;
    void *to = NULL;

    BASE_TRY(st, out, cuda_share_find(n->ctx, "all_gather", mine, n_bytes, &from));
    BASE_TRY(st, out, cuda_share_find(n->ctx, "all_gather", all, n_bytes * (size_t)c->size, &to));
    (void)pthread_mutex_lock(&n->lock);
    st = finish(n, "all-gather", ncclAllGather(from, to, n_bytes, ncclInt8, n->handle, n->stream),
                timeout_ms);
    (void)pthread_mutex_unlock(&n->lock);
out:
    return st;
}

/* Every rank's part of send to that rank, as one call. */
static ncclResult_t send_parts(const nccl_comm *n, const char *send, char *recv,
                               const int32_t *begins, size_t unit_bytes)
{
    const size_t n_own = comm_part_bytes(begins, n->base.rank, unit_bytes);
    ncclResult_t r = ncclGroupStart();
    for (int32_t peer = 0; peer < n->base.size && (r == ncclSuccess || r == ncclInProgress);
         peer++) {
        const size_t n_theirs = comm_part_bytes(begins, peer, unit_bytes);
        if (n_theirs > 0) {
            r = ncclSend(send + comm_part_at(begins, peer, unit_bytes), n_theirs, ncclInt8, peer,
                         n->handle, n->stream);
        }
        if (n_own > 0 && (r == ncclSuccess || r == ncclInProgress)) {
            r = ncclRecv(recv + (size_t)peer * n_own, n_own, ncclInt8, peer, n->handle, n->stream);
        }
    }
    const ncclResult_t ended = ncclGroupEnd();
    return r == ncclSuccess || r == ncclInProgress ? ended : r;
}

static base_status nccl_all_to_all(comm *c, const void *send, void *recv, const int32_t *begins,
                                   size_t unit_bytes, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    nccl_comm *n = (nccl_comm *)c;
    const size_t n_sent = comm_part_at(begins, c->size, unit_bytes);
    const size_t n_got = comm_part_bytes(begins, c->rank, unit_bytes) * (size_t)c->size;
    void *from = NULL;
    void *to = NULL;

    BASE_TRY(st, out, cuda_share_find(n->ctx, "all_to_all", send, n_sent, &from));
    BASE_TRY(st, out, cuda_share_find(n->ctx, "all_to_all", recv, n_got, &to));
    (void)pthread_mutex_lock(&n->lock);
    st = finish(n, "all-to-all", send_parts(n, from, to, begins, unit_bytes), timeout_ms);
    (void)pthread_mutex_unlock(&n->lock);
out:
    return st;
}

base_status comm_nccl_reduce(nccl_comm *n, const float *from, float *x, int64_t n_elems,
                             ncclRedOp_t op, int64_t timeout_ms)
{
    (void)pthread_mutex_lock(&n->lock);
    const base_status st = finish(
        n, "all-reduce",
        ncclAllReduce(from, x, (size_t)n_elems, ncclFloat32, op, n->handle, n->stream), timeout_ms);
    (void)pthread_mutex_unlock(&n->lock);
    return st;
}

static base_status nccl_sum(comm *c, float *x, int64_t n_elems, float *room, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    nccl_comm *n = (nccl_comm *)c;
    void *at = NULL;
    (void)room;

    BASE_TRY(st, out, cuda_share_find(n->ctx, "sum", x, (size_t)n_elems * sizeof *x, &at));
    st = comm_nccl_reduce(n, at, at, n_elems, ncclSum, timeout_ms);
out:
    return st;
}

/* ---- memory ---- */

static comm_nccl_window *find_window(nccl_comm *n, const void *bytes)
{
    for (int32_t i = 0; i < COMM_NCCL_MAX_WINDOWS; i++) {
        if (n->windows[i].bytes == bytes) {
            return &n->windows[i];
        }
    }
    return NULL;
}

static base_status deregister(nccl_comm *n, comm_nccl_window *w)
{
    const ncclWindow_t handle = w->handle;
    w->handle = NULL;
    return handle == NULL ? BASE_OK
                          : finish(n, "window", ncclCommWindowDeregister(n->handle, handle),
                                   DESTROY_TIMEOUT_MS);
}

/* NCCL takes its path by what each rank registered, so all have a window or none. */
static base_status make_window(nccl_comm *n, comm_nccl_window *w, size_t n_bytes)
{
    base_status st = BASE_OK;
    uint8_t *all = n->base.mem.get(n->base.mem.ctx, (size_t)n->base.size);

    if (all == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%s: %d ranks", n->who, n->base.size);
    }
    BASE_TRY(st, out,
             finish(n, "window",
                    ncclCommWindowRegister(n->handle, w->bytes, n_bytes, &w->handle,
                                           NCCL_WIN_COLL_SYMMETRIC),
                    CREATE_TIMEOUT_MS));
    const uint8_t mine = w->handle != NULL;
    BASE_TRY(st, out, comm_all_gather(n->host, &mine, all, sizeof mine, CREATE_TIMEOUT_MS));
    uint8_t every = 1;
    for (int32_t r = 0; r < n->base.size; r++) {
        every &= all[r];
    }
    if (!every) {
        BASE_TRY(st, out, deregister(n, w));
    }
    BASE_INFO("%s: %zu bytes that are exchanged, %s", n->base.backend->name, n_bytes,
              every ? "registered" : "which NCCL does not register here");
out:
    n->base.mem.put(n->base.mem.ctx, all);
    return st;
}

static base_status take_memory(nccl_comm *n, size_t n_bytes, void **bytes_out)
{
    base_status st = BASE_OK;
    comm_nccl_window *w = find_window(n, NULL);
    void *bytes = NULL;

    if (w == NULL || ncclMemAlloc(&bytes, n_bytes) != ncclSuccess) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%s: %zu bytes for exchanges", n->who, n_bytes);
        goto out;
    }
    w->bytes = bytes;
    BASE_TRY(st, out,
             cuda_to_status(cudaMemsetAsync(bytes, 0, n_bytes, n->stream), "clearing memory"));
    BASE_TRY(st, out, make_window(n, w, n_bytes));
    BASE_TRY(st, out, cuda_share_lend(n->ctx, bytes, n_bytes));
    *bytes_out = bytes;
    w = NULL;
out:
    if (w != NULL && w->bytes != NULL) {
        (void)ncclMemFree(w->bytes);
        *w = (comm_nccl_window){NULL, NULL};
    }
    return st;
}

static void *memory_get(void *ctx, size_t n_bytes)
{
    void *bytes = NULL;
    if (take_memory(ctx, n_bytes, &bytes) != BASE_OK) {
        BASE_ERROR("%s", base_last_error());
    }
    return bytes;
}

static void memory_put(void *ctx, void *bytes)
{
    nccl_comm *n = ctx;
    comm_nccl_window *w = bytes == NULL ? NULL : find_window(n, bytes);
    if (w != NULL) {
        cuda_share_take_back(n->ctx, bytes);
        if (deregister(n, w) != BASE_OK) {
            BASE_WARN("%s", base_last_error());
        }
        (void)ncclMemFree(bytes);
        w->bytes = NULL;
    }
}

static const base_alloc *nccl_memory(comm *c)
{
    return &((nccl_comm *)c)->memory;
}

/* ---- faults ---- */

static base_status nccl_look(comm *c)
{
    nccl_comm *n = (nccl_comm *)c;
    ncclResult_t r = ncclSuccess;
    if (pthread_mutex_trylock(&n->lock) != 0) {
        return BASE_OK; /* the other thread is asking */
    }
    const ncclResult_t asked = ncclCommGetAsyncError(n->handle, &r);
    (void)pthread_mutex_unlock(&n->lock);
    r = asked == ncclSuccess ? r : asked;
    return r == ncclSuccess || r == ncclInProgress ? BASE_OK : lost(n, "watch", r);
}

static void nccl_abort(comm *c)
{
    (void)ncclCommAbort(((nccl_comm *)c)->handle);
}

/* ---- life ---- */

static void nccl_destroy(comm *c)
{
    nccl_comm *n = (nccl_comm *)c;
    const base_alloc mem = c->mem;
    if (n->handle != NULL &&
        !c->lost) { /* else NCCL could wait for who is lost: it stays as it is */
        if (finish(n, "finalize", ncclCommFinalize(n->handle), DESTROY_TIMEOUT_MS) != BASE_OK) {
            BASE_WARN("%s", base_last_error());
        }
        (void)ncclCommDestroy(n->handle);
    }
    (void)pthread_mutex_destroy(&n->lock);
    mem.put(mem.ctx, n);
}

#define BACKEND                                                                                \
    .broadcast = nccl_broadcast, .all_gather = nccl_all_gather, .all_to_all = nccl_all_to_all, \
    .sum = nccl_sum, .destroy = nccl_destroy, .memory = nccl_memory, .look = nccl_look,        \
    .abort = nccl_abort
static const comm_backend backends[] = {
    [COMM_NCCL_AG] = {.name = "nccl-ag", BACKEND},
    [COMM_NCCL_A2A] = {.name = "nccl-a2a", BACKEND},
    [COMM_NCCL_AR] = {.name = "nccl-ar",
                      BACKEND,
                      .can_merge = comm_nccl_ar_can_merge,
                      .merge = comm_nccl_ar_merge},
};

/* NCCL reads it when it starts; what the user has set stays. */
static void be_a_host(int32_t rank)
{
    char host[32];
    (void)snprintf(host, sizeof host, "ropewalk-%d", rank);
    (void)setenv("NCCL_HOSTID", host, 0);
    (void)setenv("NCCL_P2P_DISABLE", "1", 0);
    (void)setenv("NCCL_SHM_DISABLE", "1", 0);
    (void)setenv("NCCL_NET", "Socket", 0);
    (void)setenv("NCCL_SOCKET_IFNAME", "lo", 0);
}

/* Rank 0's word to the others. */
typedef struct invitation {
    ncclUniqueId id;
    ncclResult_t made; /* not ncclSuccess: there is no id */
} invitation;

static base_status join(nccl_comm *n)
{
    base_status st = BASE_OK;
    invitation all = {.made = ncclSuccess};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;

    config.blocking = 0;
    if (n->base.rank == 0) {
        all.made = ncclGetUniqueId(&all.id);
    }
    BASE_TRY(st, out, comm_broadcast(n->host, &all, sizeof all, 0, CREATE_TIMEOUT_MS));
    if (all.made != ncclSuccess) {
        st = lost(n, "id of rank 0", all.made);
        goto out;
    }
    st = finish(n, "init",
                ncclCommInitRankConfig(&n->handle, n->base.size, all.id, n->base.rank, &config),
                CREATE_TIMEOUT_MS);
out:
    return st;
}

base_status comm_nccl_create(const comm_nccl_options *options, const base_alloc *mem,
                             comm **comm_out)
{
    base_status st = BASE_OK;
    cudaStream_t stream = NULL;
    nccl_comm *n = NULL;

    BASE_TRY(st, out, cuda_share_stream(options->ctx, &stream));
    n = mem->get(mem->ctx, sizeof *n);
    if (n == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "comm over NCCL");
        goto out;
    }
    n->base = (comm){.backend = &backends[options->way],
                     .mem = *mem,
                     .rank = comm_rank(options->host),
                     .size = comm_size(options->host)};
    n->host = options->host;
    n->ctx = options->ctx;
    n->stream = stream;
    n->memory = (base_alloc){memory_get, memory_put, n};
    (void)pthread_mutex_init(&n->lock, NULL);
    (void)snprintf(n->who, sizeof n->who, "%s", options->who);
    if (options->shared_gpu) {
        be_a_host(n->base.rank);
    }
    n->base.lost = true; /* until all ranks are in */
    BASE_TRY(st, out, join(n));
    n->base.lost = false;
    *comm_out = &n->base;
    n = NULL;
out:
    if (n != NULL) {
        nccl_destroy(&n->base);
    }
    return st;
}

int32_t comm_nccl_version(void)
{
    int version = 0;
    return ncclGetVersion(&version) == ncclSuccess ? version : 0;
}
