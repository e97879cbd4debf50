/* tests/support/late_comm.h - a comm whose ranks come late, at random: before a call of one over the host's memory this
 * rank may nap, and before one on a GPU the device may, however often the call is replayed. */
#ifndef TESTS_SUPPORT_LATE_COMM_H
#define TESTS_SUPPORT_LATE_COMM_H

#include "base/clock.h"
#include "base/random.h"
#include "kernels/comm/comm_backend.h"
#include "kernels/comm/comm_merge.h"

#define LATE_ONE_OF   16
#define LATE_MOST_US  3000
#define LATE_MERGE_MS 30000 /* of an exchange, which has no deadline of its own behind this seam */
#define LATE_SEED     20261201

typedef struct late_comm {
    comm base;
    comm *inner;
    kern_ctx *ctx;                         /* NULL: over the host's memory */
    base_status (*stall)(kern_ctx *, int); /* an op that may nap on the device, for this rank */
    uint64_t n_calls;
} late_comm;

static inline base_status late_nap(late_comm *l)
{
    if (l->ctx != NULL) {
        return l->stall(l->ctx, l->base.rank);
    }
    const uint64_t dice = base_random_u64(LATE_SEED, (uint64_t)l->base.rank, l->n_calls++);
    if (dice % LATE_ONE_OF == 0) {
        base_sleep_us((int64_t)(dice >> 8) % LATE_MOST_US);
    }
    return BASE_OK;
}

static inline base_status late_broadcast(comm *c, void *buf, size_t n_bytes, int32_t root,
                                         int64_t timeout_ms)
{
    late_comm *l = (late_comm *)c;
    const base_status st = late_nap(l);
    return st != BASE_OK ? st : comm_broadcast(l->inner, buf, n_bytes, root, timeout_ms);
}

static inline base_status late_all_gather(comm *c, const void *mine, void *all, size_t n_bytes,
                                          int64_t timeout_ms)
{
    late_comm *l = (late_comm *)c;
    const base_status st = late_nap(l);
    return st != BASE_OK ? st : comm_all_gather(l->inner, mine, all, n_bytes, timeout_ms);
}

static inline base_status late_all_to_all(comm *c, const void *send, void *recv,
                                          const int32_t *begins, size_t unit_bytes,
                                          int64_t timeout_ms)
{
    late_comm *l = (late_comm *)c;
    const base_status st = late_nap(l);
    return st != BASE_OK ? st
                         : comm_all_to_all(l->inner, send, recv, begins, unit_bytes, timeout_ms);
}

static inline base_status late_sum(comm *c, float *x, int64_t n, float *room, int64_t timeout_ms)
{
    late_comm *l = (late_comm *)c;
    const base_status st = late_nap(l);
    return st != BASE_OK ? st : comm_sum(l->inner, x, n, room, timeout_ms);
}

static inline bool late_can_merge(const comm *c, const kern_merge_args *args)
{
    (void)args;
    return ((const late_comm *)c)->ctx != NULL;
}

static inline base_status late_merge(comm *c, const kern_merge_args *args)
{
    late_comm *l = (late_comm *)c;
    const base_status st = late_nap(l);
    return st != BASE_OK ? st : comm_merge(l->inner, l->ctx, args, LATE_MERGE_MS);
}

static inline bool late_can_merge_own(const comm *c, const kern_deal_args *deal,
                                      const kern_merge_args *merge)
{
    (void)deal, (void)merge;
    return ((const late_comm *)c)->ctx != NULL;
}

static inline base_status late_merge_own(comm *c, const kern_deal_args *deal,
                                         const kern_merge_args *merge)
{
    late_comm *l = (late_comm *)c;
    const base_status st = late_nap(l);
    return st != BASE_OK ? st : comm_merge_own(l->inner, l->ctx, deal, merge, LATE_MERGE_MS);
}

static inline bool late_can_attend(const comm *c, const kern_ctx *ctx, const kern_attn_args *attn,
                                   const kern_deal_args *deal, const kern_merge_args *merge)
{
    (void)ctx, (void)attn, (void)deal, (void)merge;
    return ((const late_comm *)c)->ctx != NULL;
}

static inline base_status late_attend(comm *c, const kern_attn_args *attn,
                                      const kern_deal_args *deal, const kern_merge_args *merge)
{
    late_comm *l = (late_comm *)c;
    const base_status st = late_nap(l);
    return st != BASE_OK  ? st
           : deal == NULL ? comm_attend(l->inner, l->ctx, attn, merge, LATE_MERGE_MS)
                          : comm_attend_own(l->inner, l->ctx, attn, deal, merge, LATE_MERGE_MS);
}

static inline const base_alloc *late_memory(comm *c)
{
    return comm_memory(((late_comm *)c)->inner);
}

static inline base_status late_set_limit(comm *c, int64_t limit_ms)
{
    return comm_set_limit(((late_comm *)c)->inner, limit_ms);
}

static inline base_status late_look(comm *c)
{
    return comm_look(((late_comm *)c)->inner);
}

/* Made in place, and destroyed by nobody; inner, and ctx, are borrowed. */
static inline comm *late_comm_make(late_comm *l, comm *inner, kern_ctx *ctx,
                                   base_status (*nap)(kern_ctx *, int))
{
    static const comm_backend backend = {
        .name = "late",
        .broadcast = late_broadcast,
        .all_gather = late_all_gather,
        .all_to_all = late_all_to_all,
        .sum = late_sum,
        .memory = late_memory,
        .set_limit = late_set_limit,
        .look = late_look,
        .can_merge = late_can_merge,
        .merge = late_merge,
        .can_merge_own = late_can_merge_own,
        .merge_own = late_merge_own,
        .can_attend = late_can_attend,
        .attend = late_attend,
    };
    *l = (late_comm){.base = {.backend = &backend, .rank = inner->rank, .size = inner->size},
                     .inner = inner,
                     .ctx = ctx,
                     .stall = nap};
    return &l->base;
}

#endif /* TESTS_SUPPORT_LATE_COMM_H */
