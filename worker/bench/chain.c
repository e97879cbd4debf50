#include "worker/bench/chain.h"

#include "kernels/comm/comm_merge.h"

#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS 30000
#define WARM_RUNS  2
#define MIN_RUNS   5
#define ROOT       0

struct chain {
    chain_options o;
    base_alloc mem;
    const base_alloc *exchanged; /* whose memory partials are */
    float *partials;             /* [N][max_rows * (D + 1)] */
    float *dealt;                /* [max_rows * (D + 1)] */
    float *received;             /* [N][own rows * (D + 1)] */
    float *merged;               /* [max_rows, D] */
    float *weight;               /* [n_weights] ones */
    int32_t n_weights;
    double *us;  /* [CHAIN_MAX_RUNS] */
    double *all; /* [N][2] */
    /* of the chain that is timed */
    chain_link link;
    int32_t rows;
};

const char *chain_link_name(chain_link link)
{
    static const char *const names[CHAIN_N_LINKS] = {"nothing", "bare", "merge", "merge", "sum"};
    return names[link];
}

static int64_t elements(chain_link link, int32_t rows)
{
    return (int64_t)rows * (CHAIN_HEAD_DIM + (link != CHAIN_SUM));
}

int64_t chain_link_bytes(chain_link link, int32_t rows)
{
    return elements(link, rows) * (int64_t)sizeof(float);
}

void chain_destroy(chain *c)
{
    if (c == NULL) {
        return;
    }
    const base_alloc *mirror = kern_mirror(c->o.ctx);
    const base_alloc mem = c->mem;
    c->exchanged->put(c->exchanged->ctx, c->partials);
    c->exchanged->put(c->exchanged->ctx, c->dealt);
    c->exchanged->put(c->exchanged->ctx, c->received);
    mirror->put(mirror->ctx, c->merged);
    mirror->put(mirror->ctx, c->weight);
    mem.put(mem.ctx, c->us);
    mem.put(mem.ctx, c->all);
    mem.put(mem.ctx, c);
}

static int64_t stride_of(const chain *c)
{
    return (int64_t)c->rows * (CHAIN_HEAD_DIM + 1);
}

static float *place_of(const chain *c, int32_t rank)
{
    return c->partials + rank * stride_of(c);
}

/* y [rows, cols] is x with rows of length 1. */
static base_status norm(const chain *c, const float *x, float *y, int32_t rows, int32_t cols)
{
    const kern_rmsnorm_args args = {.x = x,
                                    .weight = c->weight,
                                    .y = y,
                                    .rows = rows,
                                    .cols = cols,
                                    .eps = 1e-6f,
                                    .dtype = BASE_F32};
    return kern_rmsnorm(c->o.ctx, &args);
}

/* Rows that differ, and lse near each other, so that every rank counts; by ops, since partials are no mirror. */
static base_status fill(chain *c)
{
    base_status st = BASE_OK;
    const int32_t rank = comm_rank(c->o.host);
    const int64_t n = (int64_t)c->rows * CHAIN_HEAD_DIM;
    float *mine = place_of(c, rank);
    for (int64_t i = 0; i < n; i++) {
        c->merged[i] = (float)((i * 7 + rank) % 23) * 0.125f - 1.0f;
    }
    BASE_TRY(st, out, kern_send(c->o.ctx, c->weight, (size_t)c->n_weights * sizeof *c->weight));
    BASE_TRY(st, out, kern_send(c->o.ctx, c->merged, (size_t)n * sizeof *c->merged));
    BASE_TRY(st, out, norm(c, c->merged, mine, c->rows, CHAIN_HEAD_DIM));
    st = norm(c, c->merged, mine + n, 1, c->rows);
out:
    return st;
}

base_status chain_create(const chain_options *options, const base_alloc *mem, chain **chain_out)
{
    base_status st = BASE_OK;
    const base_alloc *mirror = kern_mirror(options->ctx);
    const int32_t n_ranks = comm_size(options->host);
    const size_t row = CHAIN_HEAD_DIM * sizeof(float);
    const size_t max_rows = (size_t)options->max_rows;
    chain *c = mem->get(mem->ctx, sizeof *c);

    if (c == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "chain");
    }
    *c = (chain){.o = *options, .mem = *mem};
    c->exchanged = options->tensors == NULL ? NULL : comm_memory(options->tensors);
    c->exchanged = c->exchanged == NULL ? kern_memory(options->ctx) : c->exchanged;
    c->partials =
        c->exchanged->get(c->exchanged->ctx, (size_t)n_ranks * max_rows * (row + sizeof(float)));
    c->dealt = c->exchanged->get(c->exchanged->ctx, max_rows * (row + sizeof(float)));
    c->received =
        c->exchanged->get(c->exchanged->ctx, (max_rows + (size_t)n_ranks) * (row + sizeof(float)));
    c->n_weights = options->max_rows > CHAIN_HEAD_DIM ? options->max_rows : CHAIN_HEAD_DIM;
    c->merged = mirror->get(mirror->ctx, (size_t)options->max_rows * row);
    c->weight = mirror->get(mirror->ctx, (size_t)c->n_weights * sizeof *c->weight);
    c->us = mem->get(mem->ctx, CHAIN_MAX_RUNS * sizeof *c->us);
    c->all = mem->get(mem->ctx, (size_t)n_ranks * 2 * sizeof *c->all);
    if (c->partials == NULL || c->dealt == NULL || c->received == NULL || c->merged == NULL ||
        c->weight == NULL || c->us == NULL || c->all == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "chain of %d rows", options->max_rows);
        goto out;
    }
    for (int32_t i = 0; i < c->n_weights; i++) {
        c->weight[i] = 1.0f;
    }
    *chain_out = c;
    c = NULL;
out:
    chain_destroy(c);
    return st;
}

static base_status merge_own(chain *c)
{
    const int32_t rank = comm_rank(c->o.host);
    const int32_t n_ranks = comm_size(c->o.host);
    int32_t begins[KERN_DEAL_MAX_RANKS + 1];
    for (int32_t r = 0; r <= n_ranks && r <= KERN_DEAL_MAX_RANKS; r++) {
        begins[r] = (int32_t)((int64_t)c->rows * r / n_ranks);
    }
    const int32_t own = begins[rank + 1] - begins[rank];
    const kern_deal_args deal = {.x = place_of(c, rank),
                                 .y = c->dealt,
                                 .begins = begins,
                                 .n_ranks = n_ranks,
                                 .n_tokens = 1,
                                 .n_heads = c->rows,
                                 .head_dim = CHAIN_HEAD_DIM};
    const kern_merge_args merge = {.partials = c->received,
                                   .rank_stride = (int64_t)own * (CHAIN_HEAD_DIM + 1),
                                   .o = c->merged,
                                   .n_ranks = n_ranks,
                                   .rows = own,
                                   .head_dim = CHAIN_HEAD_DIM};
    return comm_merge_own(c->o.tensors, c->o.ctx, &deal, &merge, TIMEOUT_MS);
}

static base_status run_link(chain *c)
{
    base_status st = BASE_OK;
    const int32_t rank = comm_rank(c->o.host);
    const int32_t n_ranks = comm_size(c->o.host);
    float *const mine = place_of(c, rank);
    const float *made = mine;
    const kern_merge_args args = {.partials = c->partials,
                                  .rank_stride = stride_of(c),
                                  .o = c->merged,
                                  .n_ranks = n_ranks,
                                  .rows = c->rows,
                                  .head_dim = CHAIN_HEAD_DIM};
    switch (c->link) {
    case CHAIN_BARE:
        BASE_TRY(st, out,
                 comm_all_gather(c->o.tensors, mine, c->partials,
                                 (size_t)stride_of(c) * sizeof *mine, TIMEOUT_MS));
        made = place_of(c, (rank + 1) % n_ranks);
        break;
    case CHAIN_MERGE:
        BASE_TRY(st, out, comm_merge(c->o.tensors, c->o.ctx, &args, TIMEOUT_MS));
        made = c->merged;
        break;
    case CHAIN_MERGE_OWN:
        BASE_TRY(st, out, merge_own(c));
        made = c->merged;
        break;
    case CHAIN_SUM: /* x goes on into the place of lse, and room is the one of merges of own rows */
        BASE_TRY(
            st, out,
            comm_sum(c->o.tensors, mine, elements(CHAIN_SUM, c->rows), c->received, TIMEOUT_MS));
        break;
    default: break;
    }
    st = norm(c, made, mine, c->rows, CHAIN_HEAD_DIM);
out:
    return st;
}

static base_status run_links(void *arg)
{
    base_status st = BASE_OK;
    chain *c = arg;
    for (int32_t i = 0; i < c->o.length && st == BASE_OK; i++) {
        st = run_link(c);
    }
    return st;
}

/* One run of the chain, which all ranks begin at about the same time: they meet, and the device's queue is empty. */
static base_status run_once(chain *c, bool graph, double *us_out)
{
    base_status st = BASE_OK;
    const kern_replay_key key = {.owner = c, .words = {c->link, c->rows}};
    kern_stopwatch watch;
    double total_us = 0.0;

    BASE_TRY(st, out, kern_wait(c->o.ctx));
    BASE_TRY(st, out, comm_all_gather(c->o.host, &total_us, c->all, sizeof total_us, TIMEOUT_MS));
    BASE_TRY(st, out, kern_stopwatch_start(c->o.ctx, &watch));
    BASE_TRY(st, out, graph ? kern_replay_or_record(c->o.ctx, &key, run_links, c) : run_links(c));
    BASE_TRY(st, out, kern_stopwatch_stop(c->o.ctx, &watch, &total_us));
    *us_out = total_us / c->o.length;
out:
    return st;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Each rank's p50 and p99 to all; the largest of each. */
static base_status largest(chain *c, int32_t n_runs, chain_times *times_out)
{
    base_status st = BASE_OK;
    qsort(c->us, (size_t)n_runs, sizeof *c->us, by_size);
    const double mine[2] = {c->us[n_runs / 2], c->us[(int32_t)((n_runs - 1) * 0.99 + 0.5)]};
    chain_times t = {.n_runs = n_runs};
    BASE_TRY(st, out, comm_all_gather(c->o.host, mine, c->all, sizeof mine, TIMEOUT_MS));
    for (int32_t r = 0; r < comm_size(c->o.host); r++) {
        t.p50_us = c->all[2 * r] > t.p50_us ? c->all[2 * r] : t.p50_us;
        t.p99_us = c->all[2 * r + 1] > t.p99_us ? c->all[2 * r + 1] : t.p99_us;
    }
    *times_out = t;
out:
    return st;
}

base_status chain_time(chain *c, chain_link link, int32_t rows, bool graph, chain_times *times_out)
{
    base_status st = BASE_OK;
    double us = 0.0;
    int32_t n_runs = 0;

    c->link = link;
    c->rows = rows;
    BASE_TRY(st, out, fill(c));
    for (int32_t i = 0; i < WARM_RUNS; i++) {
        BASE_TRY(st, out, run_once(c, graph, &us));
    }
    n_runs = (int32_t)(c->o.seconds * 1e6 / (us * c->o.length + 1.0));
    n_runs = n_runs < MIN_RUNS ? MIN_RUNS : n_runs > CHAIN_MAX_RUNS ? CHAIN_MAX_RUNS : n_runs;
    BASE_TRY(st, out, comm_broadcast(c->o.host, &n_runs, sizeof n_runs, ROOT, TIMEOUT_MS));
    for (int32_t i = 0; i < n_runs; i++) {
        BASE_TRY(st, out, run_once(c, graph, &c->us[i]));
    }
    st = largest(c, n_runs, times_out);
out:
    return st;
}
