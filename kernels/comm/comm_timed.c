#include "kernels/comm/comm_timed.h"

#include "base/clock.h"
#include "kernels/comm/comm_backend.h"

typedef struct timed_comm {
    comm base;
    comm *inner;
    kern_ctx *ctx;
    int64_t ns;
    int64_t n_calls;
} timed_comm;

static base_status timed_note(timed_comm *t, int64_t begun, base_status st)
{
    st = st == BASE_OK ? kern_wait(t->ctx) : st;
    t->ns += base_now_ns() - begun;
    t->n_calls++;
    return st;
}

static base_status timed_broadcast(comm *c, void *buf, size_t n_bytes, int32_t root,
                                   int64_t timeout_ms)
{
    timed_comm *t = (timed_comm *)c;
    const int64_t begun = base_now_ns();
    return timed_note(t, begun, comm_broadcast(t->inner, buf, n_bytes, root, timeout_ms));
}

static base_status timed_all_gather(comm *c, const void *mine, void *all, size_t n_bytes,
                                    int64_t timeout_ms)
{
    timed_comm *t = (timed_comm *)c;
    const int64_t begun = base_now_ns();
    return timed_note(t, begun, comm_all_gather(t->inner, mine, all, n_bytes, timeout_ms));
}

static base_status timed_all_to_all(comm *c, const void *send, void *recv, const int32_t *begins,
                                    size_t unit_bytes, int64_t timeout_ms)
{
    timed_comm *t = (timed_comm *)c;
    const int64_t begun = base_now_ns();
    return timed_note(t, begun,
                      comm_all_to_all(t->inner, send, recv, begins, unit_bytes, timeout_ms));
}

static base_status timed_sum(comm *c, float *x, int64_t n, float *room, int64_t timeout_ms)
{
    timed_comm *t = (timed_comm *)c;
    const int64_t begun = base_now_ns();
    return timed_note(t, begun, comm_sum(t->inner, x, n, room, timeout_ms));
}

static const base_alloc *timed_memory(comm *c)
{
    return comm_memory(((timed_comm *)c)->inner);
}

static void timed_destroy(comm *c)
{
    const base_alloc mem = c->mem;
    mem.put(mem.ctx, c);
}

static const comm_backend timed_backend = {
    .name = "timed",
    .broadcast = timed_broadcast,
    .all_gather = timed_all_gather,
    .all_to_all = timed_all_to_all,
    .sum = timed_sum,
    .destroy = timed_destroy,
    .memory = timed_memory,
};

base_status comm_timed_create(comm *inner, kern_ctx *ctx, const base_alloc *mem, comm **comm_out)
{
    timed_comm *t = mem->get(mem->ctx, sizeof *t);
    if (t == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "timed comm");
    }
    t->base =
        (comm){.backend = &timed_backend, .mem = *mem, .rank = inner->rank, .size = inner->size};
    t->inner = inner;
    t->ctx = ctx;
    *comm_out = &t->base;
    return BASE_OK;
}

void comm_timed_take(comm *c, int64_t *ns_out, int64_t *n_calls_out)
{
    timed_comm *t = (timed_comm *)c;
    *ns_out = t->ns;
    *n_calls_out = t->n_calls;
    t->ns = 0;
    t->n_calls = 0;
}
