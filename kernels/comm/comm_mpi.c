/* Over MPI: non-blocking collectives, tested until they complete or the deadline passes. */
#include "base/clock.h"
#include "kernels/comm/comm_backend.h"

#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define CREATE_TIMEOUT_MS 60000 /* all ranks have started by then, or will not */

/* A collective among ranks that are computing the same step is done within the yields; longer waits
 * must leave the cores to the ranks that still compute. */
#define YIELDS       200
#define FIRST_NAP_US 20
#define LAST_NAP_US  500

#define LAST_SHORT_MS 1000 /* for the last short broadcast, when the comm ends */

typedef struct mpi_comm {
    comm base;
    MPI_Comm handle;           /* a duplicate; MPI_COMM_NULL until it is made */
    MPI_Request short_request; /* of the last short broadcast of this root, of short_bytes */
    char short_bytes[COMM_SHORT_BYTES];
    int *
        parts; /* [4][size] of an all-to-all under way: what is sent, and where it lies; what is received */
} mpi_comm;

static base_status mpi_to_status(int err, const char *what)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int n = 0;
    if (err == MPI_SUCCESS) {
        return BASE_OK;
    }
    (void)MPI_Error_string(err, text, &n);
    return BASE_FAIL(BASE_PEER_LOST, "%s: %s", what, text);
}

static base_status wait_done(MPI_Request *request, const char *what, int64_t timeout_ms)
{
    const int64_t begun = base_now_us();
    int64_t nap_us = FIRST_NAP_US;

    for (int polls = 0;; polls++) {
        int done = 0;
        const base_status st = mpi_to_status(MPI_Test(request, &done, MPI_STATUS_IGNORE), what);
        if (st != BASE_OK || done) {
            return st;
        }
        if (polls < YIELDS) {
            sched_yield();
            continue;
        }
        if ((base_now_us() - begun) / 1000 >= timeout_ms) {
            return BASE_FAIL(BASE_PEER_LOST, "%s: not all ranks answered in %lld ms", what,
                             (long long)timeout_ms);
        }
        base_sleep_us(nap_us);
        nap_us = nap_us * 2 < LAST_NAP_US ? nap_us * 2 : LAST_NAP_US;
    }
}

static base_status mpi_broadcast(comm *c, void *buf, size_t n_bytes, int32_t root,
                                 int64_t timeout_ms)
{
    base_status st = BASE_OK;
    mpi_comm *m = (mpi_comm *)c;
    MPI_Request request = MPI_REQUEST_NULL;
    char what[32];

    (void)snprintf(what, sizeof what, "broadcast of rank %d", root);
    /* MPI has a short one under way when the call returns.  To wait until it is done would be to wait for those who receive:
     * Open MPI counts some hundred bytes to a rank of the same host as sent when that rank has taken them. */
    if (root == c->rank && n_bytes <= COMM_SHORT_BYTES) {
        BASE_TRY(st, out, wait_done(&m->short_request, what, timeout_ms));
        memcpy(m->short_bytes, buf, n_bytes);
        st = mpi_to_status(
            MPI_Ibcast(m->short_bytes, (int)n_bytes, MPI_BYTE, root, m->handle, &m->short_request),
            what);
        goto out;
    }
    BASE_TRY(
        st, out,
        mpi_to_status(MPI_Ibcast(buf, (int)n_bytes, MPI_BYTE, root, m->handle, &request), what));
    st = wait_done(&request, what, timeout_ms);
out:
    return st;
}

static base_status mpi_all_gather(comm *c, const void *mine, void *all, size_t n_bytes,
                                  int64_t timeout_ms)
{
    base_status st = BASE_OK;
    mpi_comm *m = (mpi_comm *)c;
    MPI_Request request = MPI_REQUEST_NULL;
    const char *place = (const char *)all + (size_t)c->rank * n_bytes;
    const void *send = (const char *)mine == place ? MPI_IN_PLACE : mine;

    BASE_TRY(st, out,
             mpi_to_status(MPI_Iallgather(send, (int)n_bytes, MPI_BYTE, all, (int)n_bytes, MPI_BYTE,
                                          m->handle, &request),
                           "all_gather"));
    st = wait_done(&request, "all_gather", timeout_ms);
out:
    return st;
}

static base_status mpi_all_to_all(comm *c, const void *send, void *recv, const int32_t *begins,
                                  size_t unit_bytes, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    mpi_comm *m = (mpi_comm *)c;
    MPI_Request request = MPI_REQUEST_NULL;
    int *n_send = m->parts;
    int *send_at = n_send + c->size;
    int *n_recv = send_at + c->size;
    int *recv_at = n_recv + c->size;

    for (int32_t r = 0; r < c->size; r++) {
        n_send[r] = (int)comm_part_bytes(begins, r, unit_bytes);
        send_at[r] = (int)comm_part_at(begins, r, unit_bytes);
        n_recv[r] = (int)comm_part_bytes(begins, c->rank, unit_bytes);
        recv_at[r] = r * n_recv[r];
    }
    BASE_TRY(st, out,
             mpi_to_status(MPI_Ialltoallv(send, n_send, send_at, MPI_BYTE, recv, n_recv, recv_at,
                                          MPI_BYTE, m->handle, &request),
                           "all_to_all"));
    st = wait_done(&request, "all_to_all", timeout_ms);
out:
    return st;
}

static void mpi_destroy(comm *c)
{
    mpi_comm *m = (mpi_comm *)c;
    const base_alloc mem = c->mem;
    mem.put(mem.ctx, m->parts);
    if (!c->lost && m->handle != MPI_COMM_NULL &&
        wait_done(&m->short_request, "last broadcast", LAST_SHORT_MS) == BASE_OK) {
        (void)MPI_Comm_free(&m->handle);
    }
    mem.put(mem.ctx, m);
}

static const comm_backend mpi_backend = {
    .name = "mpi",
    .broadcast = mpi_broadcast,
    .all_gather = mpi_all_gather,
    .all_to_all = mpi_all_to_all,
    .destroy = mpi_destroy,
};

base_status comm_mpi_create(const base_alloc *mem, comm **comm_out)
{
    base_status st = BASE_OK;
    MPI_Request request = MPI_REQUEST_NULL;
    int rank = 0;
    int size = 0;
    mpi_comm *m = mem->get(mem->ctx, sizeof *m);

    if (m == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "comm over MPI");
        goto out;
    }
    m->base.backend = &mpi_backend;
    m->base.mem = *mem;
    m->handle = MPI_COMM_NULL;
    m->short_request = MPI_REQUEST_NULL;
    m->base.lost = true; /* until the duplicate is complete: destroy then leaves it alone */

    /* Errors come back as codes; the default handler would end the process. */
    BASE_TRY(
        st, out,
        mpi_to_status(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "error handler"));
    BASE_TRY(st, out,
             mpi_to_status(MPI_Comm_idup(MPI_COMM_WORLD, &m->handle, &request), "duplicate"));
    BASE_TRY(st, out, wait_done(&request, "duplicate", CREATE_TIMEOUT_MS));
    BASE_TRY(st, out, mpi_to_status(MPI_Comm_rank(m->handle, &rank), "rank"));
    BASE_TRY(st, out, mpi_to_status(MPI_Comm_size(m->handle, &size), "size"));
    BASE_TRY(st, out,
             mpi_to_status(MPI_Comm_set_errhandler(m->handle, MPI_ERRORS_RETURN), "error handler"));
    m->parts = mem->get(mem->ctx, 4 * (size_t)size * sizeof *m->parts);
    if (m->parts == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "comm over MPI of %d ranks", size);
        goto out;
    }
    m->base.rank = rank;
    m->base.size = size;
    m->base.lost = false;
    *comm_out = &m->base;
    m = NULL;

out:
    if (m != NULL) {
        mpi_destroy(&m->base);
    }
    return st;
}
