#include "kernels/comm/comm_lsa.h"

#include "kernels/comm/comm_backend.h"
#include "kernels/cuda/cuda_share.h"
#include "kernels/cuda/exchange_attend.h"
#include "kernels/cuda/exchange_peers.h"

#define WORD ((size_t)4)

_Static_assert(COMM_LSA_MAX_ROWS == CUDA_EXCHANGE_MAX_ROWS, "what the kernels take");
_Static_assert(COMM_LSA_MAX_SUM == CUDA_EXCHANGE_MAX_SUM, "what the kernels take");
_Static_assert(COMM_LSA_MAX_GATHER == CUDA_EXCHANGE_MAX_GATHER, "what the kernels take");

typedef struct lsa_comm {
    comm base;
    comm *tensors;
    kern_ctx *ctx;
    cudaStream_t stream;
    cuda_exchange *exchange;
    int64_t limit_ms; /* that was set last */
} lsa_comm;

static const cuda_exchange_port *port_of(const comm *c)
{
    return cuda_exchange_port_of(((const lsa_comm *)c)->exchange);
}

static base_status lsa_broadcast(comm *c, void *buf, size_t n_bytes, int32_t root,
                                 int64_t timeout_ms)
{
    base_status st = BASE_OK;
    lsa_comm *l = (lsa_comm *)c;
    void *words = NULL;

    if (n_bytes % WORD != 0 || n_bytes / WORD > (size_t)port_of(c)->shape.max_words) {
        return comm_broadcast(l->tensors, buf, n_bytes, root, timeout_ms);
    }
    BASE_TRY(st, out, cuda_share_find(l->ctx, "broadcast", buf, n_bytes, &words));
    st = cuda_exchange_broadcast(l->stream, port_of(c), words, (int32_t)(n_bytes / WORD), root);
out:
    return st;
}

static base_status lsa_all_gather(comm *c, const void *mine, void *all, size_t n_bytes,
                                  int64_t timeout_ms)
{
    base_status st = BASE_OK;
    lsa_comm *l = (lsa_comm *)c;
    void *from = NULL;
    void *to = NULL;

    if (n_bytes % WORD != 0 || n_bytes / WORD > (size_t)port_of(c)->shape.max_gather) {
        return comm_all_gather(l->tensors, mine, all, n_bytes, timeout_ms);
    }
    BASE_TRY(st, out, cuda_share_find(l->ctx, "all_gather", mine, n_bytes, &from));
    BASE_TRY(st, out, cuda_share_find(l->ctx, "all_gather", all, n_bytes * (size_t)c->size, &to));
    st = cuda_exchange_gather(l->stream, port_of(c), from, to, (int32_t)(n_bytes / WORD));
out:
    return st;
}

static base_status lsa_all_to_all(comm *c, const void *send, void *recv, const int32_t *begins,
                                  size_t unit_bytes, int64_t timeout_ms)
{
    return comm_all_to_all(((lsa_comm *)c)->tensors, send, recv, begins, unit_bytes, timeout_ms);
}

static base_status lsa_sum(comm *c, float *x, int64_t n, float *room, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    lsa_comm *l = (lsa_comm *)c;
    void *at = NULL;

    if (n > port_of(c)->shape.max_sum) {
        return comm_sum(l->tensors, x, n, room, timeout_ms);
    }
    BASE_TRY(st, out, cuda_share_find(l->ctx, "sum", x, (size_t)n * sizeof *x, &at));
    st = cuda_exchange_sum(l->stream, port_of(c), at, (int32_t)n);
out:
    return st;
}

static bool lsa_can_merge(const comm *c, const kern_merge_args *args)
{
    const bool aligned = args->rank_stride % 4 == 0 && (uintptr_t)args->partials % 16 == 0;
    return aligned && args->head_dim == port_of(c)->shape.head_dim &&
           args->rows <= port_of(c)->shape.max_rows;
}

/* All of a merge but its partials, on the device. */
static base_status find_outputs(const lsa_comm *l, kern_merge_args *a)
{
    base_status st = BASE_OK;
    const size_t n_rows = (size_t)a->rows;
    void *at = NULL;

    BASE_TRY(st, out,
             cuda_share_find(l->ctx, "o", a->o, n_rows * (size_t)a->head_dim * sizeof(float), &at));
    a->o = at;
    if (a->lse != NULL) {
        BASE_TRY(st, out, cuda_share_find(l->ctx, "lse", a->lse, n_rows * sizeof(float), &at));
        a->lse = at;
    }
    if (a->formats != NULL) {
        BASE_TRY(st, out,
                 cuda_share_find(l->ctx, "formats", a->formats,
                                 (size_t)a->n_kv_heads * sizeof *a->formats, &at));
        a->formats = at;
    }
out:
    return st;
}

static base_status lsa_merge(comm *c, const kern_merge_args *args)
{
    base_status st = BASE_OK;
    const lsa_comm *l = (const lsa_comm *)c;
    const size_t n_partials = (size_t)args->rank_stride * (size_t)args->n_ranks * sizeof(float);
    kern_merge_args a = *args;
    void *at = NULL;

    BASE_TRY(st, out, cuda_share_find(l->ctx, "partials", a.partials, n_partials, &at));
    a.partials = at;
    BASE_TRY(st, out, find_outputs(l, &a));
    st = cuda_exchange_merge(l->stream, port_of(c), &a);
out:
    return st;
}

static bool lsa_can_merge_own(const comm *c, const kern_deal_args *deal,
                              const kern_merge_args *merge)
{
    return (uintptr_t)deal->x % 16 == 0 && merge->head_dim == port_of(c)->shape.head_dim &&
           cuda_exchange_has_room(&port_of(c)->shape, deal);
}

static base_status lsa_merge_own(comm *c, const kern_deal_args *deal, const kern_merge_args *merge)
{
    base_status st = BASE_OK;
    const lsa_comm *l = (const lsa_comm *)c;
    const size_t n_partials = (size_t)deal->n_tokens * (size_t)deal->n_heads *
                              ((size_t)deal->head_dim + 1) * sizeof(float);
    kern_deal_args d = *deal;
    kern_merge_args a = *merge;
    void *at = NULL;

    BASE_TRY(st, out, cuda_share_find(l->ctx, "partials", d.x, n_partials, &at));
    d.x = at;
    BASE_TRY(st, out, find_outputs(l, &a));
    st = cuda_exchange_merge_own(l->stream, port_of(c), &d, &a);
out:
    return st;
}

static bool lsa_can_attend(const comm *c, const kern_ctx *ctx, const kern_attn_args *attn,
                           const kern_deal_args *deal, const kern_merge_args *merge)
{
    const cuda_exchange_shape *shape = &port_of(c)->shape;
    return ctx == ((const lsa_comm *)c)->ctx && merge->head_dim == shape->head_dim &&
           cuda_share_decodes(attn) && cuda_exchange_can_attend(shape, attn, deal);
}

static base_status lsa_attend(comm *c, const kern_attn_args *attn, const kern_deal_args *deal,
                              const kern_merge_args *merge)
{
    base_status st = BASE_OK;
    const lsa_comm *l = (const lsa_comm *)c;
    kern_merge_args m = *merge;
    kern_cuda_attn_work work;
    kern_attn_args a;

    BASE_TRY(st, out, find_outputs(l, &m));
    BASE_TRY(st, out, cuda_share_attn(l->ctx, attn, &a, &work));
    st = cuda_exchange_attend(l->stream, port_of(c), &work, &a, deal, &m);
out:
    return st;
}

static const base_alloc *lsa_memory(comm *c)
{
    return comm_memory(((lsa_comm *)c)->tensors);
}

static base_status lsa_set_limit(comm *c, int64_t limit_ms)
{
    lsa_comm *l = (lsa_comm *)c;
    if (limit_ms == l->limit_ms) {
        return BASE_OK;
    }
    l->limit_ms = limit_ms;
    return cuda_exchange_limit(l->stream, port_of(c), limit_ms * 1000);
}

static base_status lsa_look(comm *c)
{
    const lsa_comm *l = (const lsa_comm *)c;
    const base_status st = cuda_exchange_check(l->exchange);
    return st != BASE_OK ? st : comm_look(l->tensors);
}

static void lsa_abort(comm *c)
{
    comm_abort(((lsa_comm *)c)->tensors);
}

static void lsa_destroy(comm *c)
{
    const base_alloc mem = c->mem;
    lsa_comm *l = (lsa_comm *)c;
    cuda_exchange_close(l->exchange);
    comm_destroy(l->tensors);
    mem.put(mem.ctx, c);
}

static const comm_backend lsa_backend = {
    .name = "lsa",
    .broadcast = lsa_broadcast,
    .all_gather = lsa_all_gather,
    .all_to_all = lsa_all_to_all,
    .sum = lsa_sum,
    .destroy = lsa_destroy,
    .memory = lsa_memory,
    .set_limit = lsa_set_limit,
    .look = lsa_look,
    .abort = lsa_abort,
    .can_merge = lsa_can_merge,
    .merge = lsa_merge,
    .can_merge_own = lsa_can_merge_own,
    .merge_own = lsa_merge_own,
    .can_attend = lsa_can_attend,
    .attend = lsa_attend,
};

base_status comm_lsa_create(const comm_lsa_options *options, const base_alloc *mem, comm **comm_out)
{
    base_status st = BASE_OK;
    cuda_exchange_options exchange = {.host = options->host,
                                      .shape = {.head_dim = options->head_dim,
                                                .max_rows = options->max_rows,
                                                .max_words = options->max_words,
                                                .max_sum = COMM_LSA_MAX_SUM,
                                                .max_gather = COMM_LSA_MAX_GATHER},
                                      .limit_ms = options->limit_ms};
    lsa_comm *l = mem->get(mem->ctx, sizeof *l);

    if (l == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "comm of one-shot exchanges");
    }
    l->base = (comm){.backend = &lsa_backend,
                     .mem = *mem,
                     .rank = comm_rank(options->host),
                     .size = comm_size(options->host)};
    l->tensors = options->tensors;
    l->ctx = options->ctx;
    l->limit_ms = options->limit_ms;
    BASE_TRY(st, out, cuda_share_stream(options->ctx, &l->stream));
    exchange.stream = l->stream;
    BASE_TRY(st, out, cuda_exchange_open(&exchange, mem, &l->exchange));
    *comm_out = &l->base;
    l = NULL;
out:
    mem->put(mem->ctx, l);
    return st;
}
