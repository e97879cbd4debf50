#include "kernels/comm/comm.h"

#include "base/log.h"
#include "kernels/comm/comm_backend.h"

#define MAX_RANKS 1024

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

base_status comm_set_limit(comm *c, int64_t limit_ms)
{
    return c->backend->set_limit == NULL ? BASE_OK : c->backend->set_limit(c, limit_ms);
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
    if (n_bytes > COMM_MAX_BYTES || timeout_ms < 1) {
        return BASE_FAIL(BASE_BAD_INPUT, "%s of %zu bytes (at most %d) with timeout_ms %lld", what,
                         n_bytes, COMM_MAX_BYTES, (long long)timeout_ms);
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

/* COMM_MAX_BYTES at most of units and bytes, so that nothing below overflows; *most_out is what is sent or received. */
static base_status check_parts(const comm *c, const int32_t *begins, size_t unit_bytes,
                               size_t *most_out)
{
    if (begins[0] != 0 || c->size > MAX_RANKS) {
        return BASE_FAIL(BASE_BAD_INPUT, "all_to_all of %d ranks (at most %d) from unit %d",
                         c->size, MAX_RANKS, begins[0]);
    }
    for (int32_t r = 0; r < c->size; r++) {
        if (begins[r + 1] < begins[r]) {
            return BASE_FAIL(BASE_BAD_INPUT, "all_to_all: rank %d has units %d..%d", r, begins[r],
                             begins[r + 1] - 1);
        }
    }
    const size_t n_sent = (size_t)begins[c->size];
    const size_t n_got = (size_t)(begins[c->rank + 1] - begins[c->rank]) * (size_t)c->size;
    const size_t n = n_sent > n_got ? n_sent : n_got;
    if (unit_bytes > COMM_MAX_BYTES || n * unit_bytes > COMM_MAX_BYTES) {
        return BASE_FAIL(BASE_BAD_INPUT, "all_to_all of %zu times %zu bytes (at most %d in all)", n,
                         unit_bytes, COMM_MAX_BYTES);
    }
    *most_out = n * unit_bytes;
    return BASE_OK;
}

base_status comm_all_to_all(comm *c, const void *send, void *recv, const int32_t *begins,
                            size_t unit_bytes, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    int32_t one_each[MAX_RANKS + 1];
    size_t n_bytes = 0;

    if (begins == NULL) {
        for (int32_t r = 0; r <= c->size && r <= MAX_RANKS; r++) {
            one_each[r] = r;
        }
        begins = one_each;
    }
    BASE_TRY(st, out, check_parts(c, begins, unit_bytes, &n_bytes));
    BASE_TRY(st, out, check_call(c, "all_to_all", n_bytes, timeout_ms));
    if (unit_bytes > 0) {
        st = note_loss(c, c->backend->all_to_all(c, send, recv, begins, unit_bytes, timeout_ms));
    }
out:
    return st;
}

/* Every rank adds a share of the elements up, in rank order, and all gather the shares. */
static base_status sum_of_host(comm *c, float *x, int64_t n, float *room, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    const int64_t share = (n + c->size - 1) / c->size;
    const size_t n_bytes = (size_t)share * sizeof *x;
    float *mine = x + c->rank * share;

    BASE_TRY(st, out, comm_all_to_all(c, x, room, NULL, n_bytes, timeout_ms));
    for (int64_t i = 0; i < share; i++) {
        float sum = room[i];
        for (int32_t r = 1; r < c->size; r++) {
            sum += room[r * share + i];
        }
        mine[i] = sum;
    }
    st = comm_all_gather(c, mine, x, n_bytes, timeout_ms);
out:
    return st;
}

base_status comm_sum(comm *c, float *x, int64_t n, float *room, int64_t timeout_ms)
{
    base_status st = BASE_OK;

    if (n < 0 || n > COMM_MAX_BYTES / (int64_t)sizeof *x - c->size) {
        st = BASE_FAIL(BASE_BAD_INPUT, "sum of %lld elements over %d ranks", (long long)n, c->size);
        goto out;
    }
    BASE_TRY(st, out, check_call(c, "sum", (size_t)n * sizeof *x, timeout_ms));
    if (n > 0 && c->backend->sum != NULL) {
        st = note_loss(c, c->backend->sum(c, x, n, room, timeout_ms));
    } else if (n > 0 && c->size > 1) {
        st = sum_of_host(c, x, n, room, timeout_ms);
    }
out:
    return st;
}
