/* All policies, thread counts and paths take turns: one run of each, then the next round.  Each policy has page pools
 * of more than four times the last-level cache in all, so that nothing is found in it.  On a GPU a run is a graph of
 * calls that go through all pools; elsewhere it is a call on the next pool. */
#include "base/clock.h"
#include "base/random.h"
#include "launch/bench.h"
#include "launch/bench_pages.h"

#include <math.h>
#include <string.h>

#define ROW_BLOCKS       16 /* different ones that pages are made of */
#define SEED             1
#define MIN_ROUNDS       3
#define MIN_GRAPH_ROUNDS 7
#define GRAPH_BYTES      ((int64_t)1 << 30) /* that a graph reads at least */
#define MAX_GRAPH_CALLS  64
#define DECODE_ROWS      64 /* of the open block of a sequence that decodes */
#define TARGET_BF16      "bf16"

typedef struct rival {
    char policy[KV_MAX_POLICY_TEXT];
    bench_pages pages;
    int32_t next_pool;
    int32_t n_calls;    /* of a run */
    int64_t n_bytes;    /* that one call reads */
    bench_times *times; /* [n_threads][n_paths], of a call */
} rival;

typedef struct world {
    const bench_options *o;
    const base_alloc *mem;
    bench_device device;
    rival *rivals;
    bench_times reads[BENCH_MAX_COUNTS];
    uint8_t *plain; /* what the CPU's read bandwidth is measured on */
    int64_t plain_bytes;
    bench_rows rows; /* open blocks */
    kern_attn_page *list;
    kern_attn_seq *seqs;
    float *q, *o_out, *lse;
    int64_t position; /* of a sequence's first query */
    int32_t n_pages;  /* of a sequence */
    int32_t n_opens;  /* of a sequence */
} world;

static bool is_cuda(const world *w)
{
    return w->o->device == KERN_DEVICE_CUDA;
}

static kern_attn_args args_of(const world *w, const rival *r, int32_t pool)
{
    const bench_options *o = w->o;
    return (kern_attn_args){.q = w->q,
                            .o = w->o_out,
                            .lse = w->lse,
                            .seqs = w->seqs,
                            .page_list = w->list,
                            .opens = w->rows.opens,
                            .formats = r->pages.format->heads,
                            .pages = bench_pages_pool(&r->pages, pool),
                            .page_stride = r->pages.format->page_bytes,
                            .n_pages_total = w->n_pages * o->batch,
                            .n_seqs = o->batch,
                            .n_page_list = w->n_pages * o->batch,
                            .n_opens = w->rows.n_blocks,
                            .n_tokens = o->batch * o->n_queries,
                            .n_heads = o->n_heads,
                            .n_kv_heads = o->n_kv_heads,
                            .head_dim = o->head_dim,
                            .scale = (float)(1.0 / sqrt((double)o->head_dim))};
}

static base_status rival_open(world *w, rival *r, const char *text)
{
    base_status st = BASE_OK;
    const bench_options *o = w->o;
    const size_t n_cells = (size_t)(o->n_threads * o->n_paths);

    r->times = w->mem->get(w->mem->ctx, n_cells * sizeof *r->times);
    if (r->times == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "times of %s", text);
    }
    BASE_TRY(st, out,
             bench_pages_open(w->device.ctx[0], o, text, w->n_pages * o->batch, ROW_BLOCKS,
                              bench_cold_bytes(o->device), w->mem, &r->pages));
    kv_policy_text(&r->pages.format->policy, r->policy);
    if (w->rows.n_blocks ==
        0) { /* the first one's rows serve all: rotated normal rows are normal */
        BASE_TRY(
            st, out,
            bench_rows_open(w->device.ctx[0], r->pages.format, w->n_opens * o->batch, &w->rows));
        for (int32_t i = 0; i < w->rows.n_blocks; i++) {
            w->rows.opens[i].block = (int32_t)(w->position / KERN_BLOCK_TOKENS) + i % w->n_opens;
        }
        BASE_TRY(st, out,
                 kern_send(w->device.ctx[0], w->rows.opens,
                           (size_t)w->rows.n_blocks * sizeof *w->rows.opens));
    }
    const kern_attn_args args = args_of(w, r, 0);
    r->n_bytes = kern_attn_bytes(&args);
    r->n_calls = 1;
    if (is_cuda(w) && o->n_queries == 1) {
        const int64_t n = GRAPH_BYTES / r->n_bytes / r->pages.n_pools + 1;
        r->n_calls = r->pages.n_pools * (int32_t)n;
        r->n_calls = r->n_calls < MAX_GRAPH_CALLS ? r->n_calls : MAX_GRAPH_CALLS;
    }
out:
    return st;
}

typedef struct rival_on { /* a context */
    const world *world;
    rival *rival;
    kern_ctx *ctx;
} rival_on;

static base_status rival_calls(void *arg)
{
    base_status st = BASE_OK;
    const rival_on *on = arg;
    rival *r = on->rival;
    for (int32_t i = 0; i < r->n_calls && st == BASE_OK; i++) {
        const kern_attn_args args = args_of(on->world, r, r->next_pool);
        r->next_pool = (r->next_pool + 1) % r->pages.n_pools;
        st = kern_attn(on->ctx, &args);
    }
    return st;
}

/* Runs and, but for the first time, times it. */
static base_status rival_run(world *w, rival *r, int32_t count, int32_t path, bool is_first)
{
    base_status st = BASE_OK;
    rival_on on = {w, r, w->device.ctx[count]};
    double us = 0.0;

    if (is_cuda(w) && is_first) { /* what a call may allocate, before it is recorded */
        BASE_TRY(st, out, rival_calls(&on));
    } else if (!is_cuda(w)) {
        cpu_isa_limit(on.ctx, w->o->paths[path]);
    }
    BASE_TRY(st, out, bench_time_ops(on.ctx, r, rival_calls, &on, &us));
    if (!is_first) {
        bench_times_add(&r->times[count * w->o->n_paths + path], us / r->n_calls);
    }
out:
    return st;
}

/* Queries repeat after a while: normal values take their time. */
static void fill_queries(float *q, int64_t n)
{
    const int64_t n_own = n < (1 << 18) ? n : 1 << 18;
    for (int64_t i = 0; i < n_own; i++) {
        q[i] = (float)base_random_normal(SEED, 1000, (uint64_t)i);
    }
    for (int64_t at = n_own; at < n; at += n_own) {
        memcpy(q + at, q, (size_t)(n - at < n_own ? n - at : n_own) * sizeof *q);
    }
}

static base_status fill_step(world *w)
{
    base_status st = BASE_OK;
    const bench_options *o = w->o;
    kern_ctx *ctx = w->device.ctx[0];
    const int64_t n_elems = (int64_t)o->batch * o->n_queries * o->n_heads * o->head_dim;

    fill_queries(w->q, n_elems);
    for (int32_t s = 0; s < o->batch; s++) {
        w->seqs[s] = (kern_attn_seq){.position = w->position,
                                     .first_token = s * o->n_queries,
                                     .n_tokens = o->n_queries,
                                     .first_page = s * w->n_pages,
                                     .n_pages = w->n_pages,
                                     .first_open = s * w->n_opens,
                                     .n_opens = w->n_opens};
        for (int32_t b = 0; b < w->n_pages; b++) { /* pages of a pool lie anywhere */
            const int64_t at = (int64_t)(s * w->n_pages + b) * 7919;
            w->list[s * w->n_pages + b] =
                (kern_attn_page){b, (int32_t)(at % ((int64_t)w->n_pages * o->batch))};
        }
    }
    BASE_TRY(st, out, kern_send(ctx, w->q, (size_t)n_elems * sizeof *w->q));
    BASE_TRY(st, out, kern_send(ctx, w->seqs, (size_t)o->batch * sizeof *w->seqs));
    st = kern_send(ctx, w->list, (size_t)(w->n_pages * o->batch) * sizeof *w->list);
out:
    return st;
}

static base_status world_open(world *w)
{
    const bench_options *o = w->o;
    base_status st = BASE_OK;
    const int64_t n_rows = (int64_t)o->batch * o->n_queries * o->n_heads;

    BASE_TRY(st, out, bench_device_open(o, w->mem, &w->device));
    const base_alloc *mirror = kern_mirror(w->device.ctx[0]);
    w->plain_bytes = is_cuda(w) ? 0 : bench_cold_bytes(o->device) / 65536 * 65536;
    w->plain = w->mem->get(w->mem->ctx, (size_t)w->plain_bytes);
    w->rivals = w->mem->get(w->mem->ctx, (size_t)o->n_policies * sizeof *w->rivals);
    w->list = mirror->get(mirror->ctx, (size_t)(w->n_pages * o->batch) * sizeof *w->list);
    w->seqs = mirror->get(mirror->ctx, (size_t)o->batch * sizeof *w->seqs);
    w->q = mirror->get(mirror->ctx, (size_t)(n_rows * o->head_dim) * sizeof *w->q);
    w->o_out = mirror->get(mirror->ctx, (size_t)(n_rows * o->head_dim) * sizeof *w->o_out);
    w->lse = mirror->get(mirror->ctx, (size_t)n_rows * sizeof *w->lse);
    if (w->rivals == NULL || w->list == NULL || w->seqs == NULL || w->q == NULL ||
        w->o_out == NULL || w->lse == NULL || w->plain == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "benchmark of %d sequences of %d blocks", o->batch,
                       w->n_pages);
        goto out;
    }
    memset(w->plain, 1, (size_t)w->plain_bytes); /* else all pages are one page of zeros */
    BASE_TRY(st, out, fill_step(w));
    for (int32_t i = 0; i < o->n_policies && st == BASE_OK; i++) {
        st = rival_open(w, &w->rivals[i], o->policies[i]);
    }
out:
    return st;
}

static void world_close(world *w)
{
    const base_alloc *mem = w->mem;
    kern_ctx *ctx = w->device.ctx[0];
    for (int32_t i = 0; i < w->o->n_policies && w->rivals != NULL; i++) {
        mem->put(mem->ctx, w->rivals[i].times);
        if (ctx != NULL) {
            bench_pages_close(ctx, &w->rivals[i].pages);
        }
    }
    mem->put(mem->ctx, w->rivals);
    mem->put(mem->ctx, w->plain);
    if (ctx != NULL) {
        const base_alloc *mirror = kern_mirror(ctx);
        bench_rows_close(ctx, &w->rows);
        mirror->put(mirror->ctx, w->list);
        mirror->put(mirror->ctx, w->seqs);
        mirror->put(mirror->ctx, w->q);
        mirror->put(mirror->ctx, w->o_out);
        mirror->put(mirror->ctx, w->lse);
    }
    bench_device_close(&w->device);
}

static base_status run_round(world *w, bool is_first)
{
    base_status st = BASE_OK;
    const int32_t n_policies = w->o->n_policies;
    for (int32_t i = 0; i < w->o->n_threads; i++) {
        double us = 0.0;
        if (!is_cuda(w)) {
            BASE_TRY(st, out, bench_read_memory(w->plain, w->plain_bytes, w->o->threads[i], &us));
            bench_times_add(&w->reads[i], us);
        }
        for (int32_t k = 0; k < n_policies * w->o->n_paths; k++) {
            BASE_TRY(st, out,
                     rival_run(w, &w->rivals[k % n_policies], i, k / n_policies, is_first));
        }
    }
out:
    return st;
}

static base_status measure(world *w)
{
    base_status st = BASE_OK;
    const int32_t min_rounds = is_cuda(w) ? MIN_GRAPH_ROUNDS : MIN_ROUNDS;

    BASE_TRY(st, out, run_round(w, true));
    const int64_t begun = base_now_us();
    for (int32_t round = 0; round < BENCH_MAX_RUNS; round++) {
        if (round >= min_rounds && (double)(base_now_us() - begun) > w->o->seconds * 1e6) {
            break;
        }
        BASE_TRY(st, out, run_round(w, false));
    }
out:
    return st;
}

/* One line of the report: a policy on a path with a number of threads. */
static json_t *describe_cell(const world *w, rival *r, const rival *bf16, int32_t count,
                             int32_t path, double read_gb)
{
    const bench_options *o = w->o;
    const int32_t cell = count * o->n_paths + path;
    const double us = bench_times_at(&r->times[cell], 0.5);
    const double gb = (double)r->n_bytes * 1e-3 / us;
    const double n_pairs = (double)o->batch * o->n_queries * o->n_heads *
                           ((double)w->position + (o->n_queries + 1) / 2.0);
    json_t *speed =
        bf16 != NULL ? json_real(bench_times_at(&bf16->times[cell], 0.5) / us) : json_null();
    return json_pack(
        "{s:s, s:s, s:i, s:I, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "policy", r->policy,
        "path", is_cuda(w) ? "cuda" : cpu_isa_name(o->paths[path]), "threads", o->threads[count],
        "bytes", (json_int_t)r->n_bytes, "runs", r->times[cell].n, "median_us", us, "p10_us",
        bench_times_at(&r->times[cell], 0.1), "p90_us", bench_times_at(&r->times[cell], 0.9),
        "gb_per_s", gb, "share_of_read_bandwidth", gb / read_gb, "us_over_floor",
        us - (double)r->n_bytes * 1e-3 / read_gb, "tflops", 4e-6 * o->head_dim * n_pairs / us,
        "speed_against_bf16", speed);
}

static json_t *describe(world *w)
{
    const bench_options *o = w->o;
    json_t *reads = json_array();
    json_t *results = json_array();
    const rival *bf16 = NULL;

    for (int32_t p = 0; p < o->n_policies; p++) {
        bf16 = strcmp(w->rivals[p].policy, TARGET_BF16) == 0 ? &w->rivals[p] : bf16;
    }
    for (int32_t i = 0; i < o->n_threads; i++) {
        const double read_gb =
            is_cuda(w) ? w->device.read_gb
                       : (double)w->plain_bytes * 1e-3 / bench_times_at(&w->reads[i], 0.5);
        (void)json_array_append_new(
            reads, json_pack("{s:i, s:f}", "threads", o->threads[i], "gb_per_s", read_gb));
        for (int32_t path = 0; path < o->n_paths; path++) {
            for (int32_t p = 0; p < o->n_policies; p++) {
                (void)json_array_append_new(
                    results, describe_cell(w, &w->rivals[p], bf16, i, path, read_gb));
            }
        }
    }
    return json_pack("{s:s, s:s, s:s, s:{s:s, s:i, s:i, s:i}, s:I, s:i, s:i, s:o, s:f, s:o}",
                     "bench", o->n_queries == 1 ? "attention" : "prefill", "device",
                     kern_device_name(o->device), "gpu", w->device.gpu.name, "shape", "name",
                     o->shape_name, "heads", o->n_heads, "kv_heads", o->n_kv_heads, "head_dim",
                     o->head_dim, "context", (json_int_t)o->context, "queries", o->n_queries,
                     "batch", o->batch, "read_bandwidth", reads, "copy_gb_per_s", w->device.copy_gb,
                     "results", results);
}

base_status bench_attention(const bench_options *o, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    const int64_t context = o->context / KERN_BLOCK_TOKENS * KERN_BLOCK_TOKENS;
    const int64_t position = context + (o->n_queries == 1 ? DECODE_ROWS - 1 : 0);
    const int64_t last_block = (position + o->n_queries - 1) / KERN_BLOCK_TOKENS;
    world w = {.o = o,
               .mem = mem,
               .position = position,
               .n_pages = (int32_t)last_block,
               .n_opens = (int32_t)(last_block - position / KERN_BLOCK_TOKENS) + 1};

    BASE_TRY(st, out, world_open(&w));
    BASE_TRY(st, out, measure(&w));
    *json_out = describe(&w);
    st = *json_out != NULL ? BASE_OK : BASE_FAIL(BASE_NO_MEMORY, "JSON of the benchmark");
out:
    world_close(&w);
    return st;
}
