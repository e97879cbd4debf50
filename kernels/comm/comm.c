#include "kernels/comm/comm.h"

#include "base/log.h"
#include "kernels/comm/comm_backend.h"

#include <limits.h>

void comm_destroy(comm *c)
{
    if (c != NULL) {
        c->backend->destroy(c);
    }
}

int32_t comm_rank(const comm *c)
{
    return c->rank;
}

int32_t comm_size(const comm *c)
{
    return c->size;
}

const char *comm_name(const comm *c)
{
    return c->backend->name;
}

const base_alloc *comm_memory(comm *c)
{
    return c->backend->memory == NULL ? NULL : c->backend->memory(c);
}

base_status comm_look(comm *c)
{
    return c->backend->look == NULL ? BASE_OK : c->backend->look(c);
}

void comm_abort(comm *c)
{
    if (c->backend->abort != NULL) {
        c->backend->abort(c);
    }
}

static base_status check_call(const comm *c, const char *what, size_t n_bytes, int64_t timeout_ms)
{
    if (n_bytes > INT_MAX || timeout_ms < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s of %zu bytes (at most %d) with timeout_ms %lld", what,
                         n_bytes, INT_MAX, (long long)timeout_ms);
    }
    if (c->lost) {
        return BASE_FAIL(BASE_PEER_LOST, "%s on rank %d after a peer was lost", what, c->rank);
    }
    return BASE_OK;
}

static base_status note_loss(comm *c, base_status st)
{
    if (st == BASE_PEER_LOST) {
        c->lost = true;
        BASE_ERROR("comm rank %d size %d: %s", c->rank, c->size, base_last_error());
    }
    return st;
}

base_status comm_broadcast(comm *c, void *buf, size_t n_bytes, int32_t root, int64_t timeout_ms)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, check_call(c, "broadcast", n_bytes, timeout_ms));
    if (root < 0 || root >= c->size) {
        st = BASE_FAIL(BASE_BAD_INPUT, "broadcast from rank %d of %d", root, c->size);
        goto out;
    }
    if (n_bytes > 0) {
        st = note_loss(c, c->backend->broadcast(c, buf, n_bytes, root, timeout_ms));
    }
out:
    return st;
}

base_status comm_all_gather(comm *c, const void *mine, void *all, size_t n_bytes,
                            int64_t timeout_ms)
{
    base_status st = BASE_OK;

    BASE_TRY(st, out, check_call(c, "all_gather", n_bytes, timeout_ms));
    if (n_bytes > 0) {
        st = note_loss(c, c->backend->all_gather(c, mine, all, n_bytes, timeout_ms));
    }
out:
    return st;
}
