/* kernels/comm/comm_backend.h - the seam between comm.h and its transports.
 *
 * comm.c has checked the arguments and that the comm is alive; n_bytes > 0.  A transport that
 * returns PEER_LOST is not called again, but for destroy with `lost` set. */
#ifndef KERNELS_COMM_COMM_BACKEND_H
#define KERNELS_COMM_COMM_BACKEND_H

#include "kernels/comm/comm.h"
#include "kernels/kern.h"
#include "kernels/op_attn.h"
#include "kernels/op_deal.h"
#include "kernels/op_merge.h"

#include <stdbool.h>

typedef struct comm_backend {
    const char *name;
    base_status (*broadcast)(comm *c, void *buf, size_t n_bytes, int32_t root, int64_t timeout_ms);
    base_status (*all_gather)(comm *c, const void *mine, void *all, size_t n_bytes,
                              int64_t timeout_ms);
    /* begins is never NULL. */
    base_status (*all_to_all)(comm *c, const void *send, void *recv, const int32_t *begins,
                              size_t unit_bytes, int64_t timeout_ms);
    /* NULL, over the host's memory: comm_sum is made of the others. */
    base_status (*sum)(comm *c, float *x, int64_t n, float *room, int64_t timeout_ms);
    void (*destroy)(comm *c);             /* frees c too */
    const base_alloc *(*memory)(comm *c); /* NULL, like the next three: there is nothing to it */
    base_status (*set_limit)(comm *c, int64_t limit_ms);
    base_status (*look)(comm *c); /* any thread */
    void (*abort)(comm *c);       /* any thread */
    /* Of comm_merge.h.  NULL: an all-gather and the op do it, as they do what can_merge refuses. */
    bool (*can_merge)(const comm *c, const kern_merge_args *args);
    base_status (*merge)(comm *c, const kern_merge_args *args);
    /* The same of own heads.  NULL: the op, an all-to-all and the op. */
    bool (*can_merge_own)(const comm *c, const kern_deal_args *deal, const kern_merge_args *merge);
    base_status (*merge_own)(comm *c, const kern_deal_args *deal, const kern_merge_args *merge);
    /* Of comm_attend, with deal NULL, and of comm_attend_own.  NULL: the op, and what merges. */
    bool (*can_attend)(const comm *c, const kern_ctx *ctx, const kern_attn_args *attn,
                       const kern_deal_args *deal, const kern_merge_args *merge);
    base_status (*attend)(comm *c, const kern_attn_args *attn, const kern_deal_args *deal,
                          const kern_merge_args *merge);
} comm_backend;

struct comm { /* first member of a transport's own struct */
    const comm_backend *backend;
    base_alloc mem;
    int32_t rank;
    int32_t size;
    bool lost; /* PEER_LOST was returned once */
};

/* Bytes before a part of comm_all_to_all; the part itself. */
static inline size_t comm_part_at(const int32_t *begins, int32_t rank, size_t unit_bytes)
{
    return (size_t)begins[rank] * unit_bytes;
}

static inline size_t comm_part_bytes(const int32_t *begins, int32_t rank, size_t unit_bytes)
{
    return (size_t)(begins[rank + 1] - begins[rank]) * unit_bytes;
}

#endif /* KERNELS_COMM_COMM_BACKEND_H */
