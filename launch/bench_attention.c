/* All policies and thread counts take turns: one run of each, then the next round.  Each policy has
 * page pools of more than four times the last-level cache in all, so that nothing is found in it. */
#include "base/clock.h"
#include "base/half.h"
#include "base/random.h"
#include "kernels/kern.h"
#include "kvshard/calibration.h"
#include "kvshard/format.h"
#include "launch/bench.h"

#include <math.h>
#include <string.h>

#define TEMPLATE_PAGES 16
#define SEED           1
#define MIN_ROUNDS     3
#define TARGET_BF16    "bf16"
#define ENERGY_SPREAD  1.5 /* deviation of the logarithm of a RoPE block's energy */

typedef struct rival {
    char policy[KV_MAX_POLICY_TEXT];
    kv_format *format;
    uint8_t *pages;
    int32_t n_pools, next_pool;
    int64_t pool_bytes;
    int64_t n_bytes;    /* that one run reads */
    bench_times *times; /* [n_threads][n_paths] */
} rival;

typedef struct world {
    const bench_options *o;
    const base_alloc *mem;
    rival *rivals;
    kern_ctx *ctx[BENCH_MAX_COUNTS];
    bench_times reads[BENCH_MAX_COUNTS];
    uint8_t *plain; /* what read bandwidth is measured on */
    int64_t plain_bytes;
    kern_attn_page *list;
    kern_attn_seq *seqs;
    float *q, *o_out, *lse;
    int32_t n_blocks; /* of a sequence */
} world;

static void put_f16(uint8_t *section, int64_t index, double x)
{
    const uint16_t bits = base_f16_from_f32((float)x);
    memcpy(section + index * 2, &bits, sizeof bits);
}

/* Norms near sqrt(n); ranges near 4 around 0. */
static void fill_metadata(const kern_segment *g, uint8_t *head_page, uint64_t stream)
{
    const int32_t n = kern_segment_is_affine(g) ? kern_segment_pairs(g) : KERN_BLOCK_TOKENS;
    for (int64_t i = 0; i < n; i++) {
        const double near_one = 0.9 + 0.2 * base_random_unit(SEED, stream, (uint64_t)i);
        if (kern_segment_is_affine(g)) {
            put_f16(head_page + g->scales_offset, i, 4.0 * near_one / ((1 << g->bits) - 1));
            put_f16(head_page + g->minima_offset, i, -2.0 * near_one);
        } else {
            put_f16(head_page + g->norms_offset, i, sqrt((double)g->n_dims) * near_one);
        }
    }
}

/* Random codes and what rows of a standard normal have beside them. */
static void fill_side(const kern_side *side, uint8_t *head_page, uint64_t stream)
{
    for (int32_t s = 0; s < side->n_segments; s++) {
        const kern_segment *g = &side->segments[s];
        const int64_t n_elems = (int64_t)KERN_BLOCK_TOKENS * g->n_dims;
        if (g->kind == KERN_PLAIN) {
            for (int64_t i = 0; i < n_elems; i++) {
                const uint16_t v =
                    base_bf16_from_f32((float)base_random_normal(SEED, stream, (uint64_t)i));
                memcpy(head_page + g->codes_offset + i * 2, &v, sizeof v);
            }
            continue;
        }
        for (int64_t i = 0; i < n_elems * g->bits / 64; i++) {
            const uint64_t w = base_random_u64(SEED, stream, (uint64_t)i);
            memcpy(head_page + g->codes_offset + i * 8, &w, sizeof w);
        }
        fill_metadata(g, head_page, stream + 1);
    }
}

/* The format of a policy, after synthetic energies if it wants some. */
static base_status make_format(const world *w, const char *text, rival *r)
{
    base_status st = BASE_OK;
    kv_policy policy;
    kv_calibration *calibration = NULL;
    const kv_shape shape = {1, w->o->n_kv_heads, w->o->head_dim};
    const base_hash no_model = {{0}};

    BASE_TRY(st, out, kv_policy_parse(text, &policy));
    BASE_TRY(st, out, kv_calibration_create(&shape, no_model, 1, w->mem, &calibration));
    for (int32_t i = 0; i < shape.n_kv_heads * shape.head_dim / 2; i++) {
        const double z = base_random_normal(SEED, 999, (uint64_t)i);
        calibration->scores[i] = (float)exp(ENERGY_SPREAD * z);
    }
    BASE_TRY(st, out,
             kv_format_create_calibrated(&policy, &shape, calibration, w->mem, &r->format));
    kv_policy_text(&policy, r->policy);
out:
    kv_calibration_destroy(calibration);
    return st;
}

static base_status rival_open(world *w, rival *r, const char *text)
{
    const kv_shape shape = {1, w->o->n_kv_heads, w->o->head_dim};
    const base_status st = make_format(w, text, r);
    if (st != BASE_OK) {
        return st;
    }
    const int32_t n_cells = w->o->n_threads * w->o->n_paths;
    r->times = w->mem->get(w->mem->ctx, (size_t)n_cells * sizeof *r->times);
    if (r->times == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "times of %s", r->policy);
    }
    const int64_t stride = r->format->page_bytes;
    const int64_t n_pages = (int64_t)w->n_blocks * w->o->batch;
    r->pool_bytes = n_pages * stride;
    r->n_pools = (int32_t)(bench_cold_bytes() / r->pool_bytes) + 1;
    r->pages = w->mem->get(w->mem->ctx, (size_t)(r->n_pools * r->pool_bytes));
    if (r->pages == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "%lld bytes of pages of %s",
                         (long long)(r->n_pools * r->pool_bytes), r->policy);
    }
    for (int64_t p = 0; p < n_pages * r->n_pools; p++) {
        uint8_t *page = r->pages + p * stride;
        if (p >= TEMPLATE_PAGES) {
            memcpy(page, page - TEMPLATE_PAGES * stride, (size_t)stride);
            continue;
        }
        for (int32_t h = 0; h < shape.n_kv_heads; h++) {
            const kern_head_format *f = &r->format->heads[h];
            const uint64_t stream = (uint64_t)(p * shape.n_kv_heads + h) * 4;
            fill_side(&f->k, page + f->offset, stream);
            fill_side(&f->v, page + f->offset, stream + 2);
        }
    }
    return BASE_OK;
}

static kern_attn_args args_of(const world *w, const rival *r)
{
    const bench_options *o = w->o;
    return (kern_attn_args){.q = w->q,
                            .o = w->o_out,
                            .lse = w->lse,
                            .seqs = w->seqs,
                            .page_list = w->list,
                            .formats = r->format->heads,
                            .pages = r->pages + r->next_pool * r->pool_bytes,
                            .page_stride = r->format->page_bytes,
                            .n_pages_total = w->n_blocks * o->batch,
                            .n_seqs = o->batch,
                            .n_page_list = w->n_blocks * o->batch,
                            .n_tokens = o->batch,
                            .n_heads = o->n_heads,
                            .n_kv_heads = o->n_kv_heads,
                            .head_dim = o->head_dim,
                            .scale = (float)(1.0 / sqrt((double)o->head_dim))};
}

/* One timed call on the next pool. */
static base_status rival_run(world *w, rival *r, int32_t count, int32_t path)
{
    const kern_attn_args args = args_of(w, r);
    cpu_isa_limit(w->ctx[count], w->o->paths[path]);
    const int64_t begun = base_now_ns();
    const base_status st = kern_attn(w->ctx[count], &args);
    bench_times_add(&r->times[count * w->o->n_paths + path],
                    (double)(base_now_ns() - begun) * 1e-3);
    r->n_bytes = kern_attn_bytes(&args);
    r->next_pool = (r->next_pool + 1) % r->n_pools;
    return st;
}

static base_status world_open(world *w)
{
    const bench_options *o = w->o;
    const base_alloc *mem = w->mem;
    base_status st = BASE_OK;
    const int64_t n_rows = (int64_t)o->batch * o->n_heads;
    const size_t n_list = (size_t)w->n_blocks * (size_t)o->batch;

    w->plain_bytes = bench_cold_bytes() / 65536 * 65536;
    w->rivals = mem->get(mem->ctx, (size_t)o->n_policies * sizeof *w->rivals);
    w->list = mem->get(mem->ctx, n_list * sizeof *w->list);
    w->seqs = mem->get(mem->ctx, (size_t)o->batch * sizeof *w->seqs);
    w->q = mem->get(mem->ctx, (size_t)(n_rows * o->head_dim) * sizeof *w->q);
    w->o_out = mem->get(mem->ctx, (size_t)(n_rows * o->head_dim) * sizeof *w->o_out);
    w->lse = mem->get(mem->ctx, (size_t)n_rows * sizeof *w->lse);
    w->plain = mem->get(mem->ctx, (size_t)w->plain_bytes);
    if (w->rivals == NULL || w->list == NULL || w->seqs == NULL || w->q == NULL ||
        w->o_out == NULL || w->lse == NULL || w->plain == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "benchmark of %d sequences of %d blocks", o->batch,
                         w->n_blocks);
    }
    memset(w->plain, 1, (size_t)w->plain_bytes); /* else all pages are one page of zeros */
    for (int64_t i = 0; i < n_rows * o->head_dim; i++) {
        w->q[i] = (float)base_random_normal(SEED, 1000, (uint64_t)i);
    }
    for (int32_t s = 0; s < o->batch; s++) {
        w->seqs[s] = (kern_attn_seq){.position = (int64_t)w->n_blocks * KERN_BLOCK_TOKENS,
                                     .first_token = s,
                                     .n_tokens = 1,
                                     .first_page = s * w->n_blocks,
                                     .n_pages = w->n_blocks};
        for (int32_t b = 0; b < w->n_blocks; b++) {
            w->list[s * w->n_blocks + b] = (kern_attn_page){b, s * w->n_blocks + b};
        }
    }
    for (int32_t i = 0; i < o->n_threads && st == BASE_OK; i++) {
        st = kern_ctx_create_cpu(o->threads[i], mem, &w->ctx[i]);
    }
    for (int32_t i = 0; i < o->n_policies && st == BASE_OK; i++) {
        st = rival_open(w, &w->rivals[i], o->policies[i]);
    }
    return st;
}

static void world_close(world *w)
{
    const base_alloc *mem = w->mem;
    for (int32_t i = 0; i < w->o->n_policies && w->rivals != NULL; i++) {
        kv_format_destroy(w->rivals[i].format);
        mem->put(mem->ctx, w->rivals[i].times);
        mem->put(mem->ctx, w->rivals[i].pages);
    }
    for (int32_t i = 0; i < w->o->n_threads; i++) {
        kern_ctx_destroy(w->ctx[i]);
    }
    mem->put(mem->ctx, w->rivals);
    mem->put(mem->ctx, w->list);
    mem->put(mem->ctx, w->seqs);
    mem->put(mem->ctx, w->q);
    mem->put(mem->ctx, w->o_out);
    mem->put(mem->ctx, w->lse);
    mem->put(mem->ctx, w->plain);
}

static base_status measure(world *w)
{
    base_status st = BASE_OK;
    const int64_t begun = base_now_us();
    for (int32_t round = 0; round < BENCH_MAX_RUNS && st == BASE_OK; round++) {
        if (round >= MIN_ROUNDS && (double)(base_now_us() - begun) > w->o->seconds * 1e6) {
            break;
        }
        for (int32_t i = 0; i < w->o->n_threads && st == BASE_OK; i++) {
            double us = 0.0;
            BASE_TRY(st, out, bench_read_memory(w->plain, w->plain_bytes, w->o->threads[i], &us));
            bench_times_add(&w->reads[i], us);
            for (int32_t k = 0; k < w->o->n_policies * w->o->n_paths && st == BASE_OK; k++) {
                st = rival_run(w, &w->rivals[k % w->o->n_policies], i, k / w->o->n_policies);
            }
        }
    }
out:
    return st;
}

/* One line of the report: a policy on a path with a number of threads. */
static json_t *describe_cell(const world *w, rival *r, const rival *bf16, int32_t count,
                             int32_t path, double read_gb)
{
    const int32_t cell = count * w->o->n_paths + path;
    const double us = bench_times_at(&r->times[cell], 0.5);
    const double gb = (double)r->n_bytes * 1e-3 / us;
    json_t *speed =
        bf16 != NULL ? json_real(bench_times_at(&bf16->times[cell], 0.5) / us) : json_null();
    return json_pack("{s:s, s:s, s:i, s:I, s:i, s:f, s:f, s:f, s:f, s:f, s:o}", "policy", r->policy,
                     "path", cpu_isa_name(w->o->paths[path]), "threads", w->o->threads[count],
                     "bytes", (json_int_t)r->n_bytes, "runs", r->times[cell].n, "median_us", us,
                     "p10_us", bench_times_at(&r->times[cell], 0.1), "p90_us",
                     bench_times_at(&r->times[cell], 0.9), "gb_per_s", gb,
                     "share_of_read_bandwidth", gb / read_gb, "speed_against_bf16", speed);
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
        const double read_gb = (double)w->plain_bytes * 1e-3 / bench_times_at(&w->reads[i], 0.5);
        (void)json_array_append_new(
            reads, json_pack("{s:i, s:f}", "threads", o->threads[i], "gb_per_s", read_gb));
        for (int32_t path = 0; path < o->n_paths; path++) {
            for (int32_t p = 0; p < o->n_policies; p++) {
                (void)json_array_append_new(
                    results, describe_cell(w, &w->rivals[p], bf16, i, path, read_gb));
            }
        }
    }
    return json_pack("{s:s, s:s, s:{s:s, s:i, s:i, s:i}, s:I, s:i, s:o, s:o}", "bench", "attention",
                     "device", "cpu", "shape", "name", o->shape_name, "heads", o->n_heads,
                     "kv_heads", o->n_kv_heads, "head_dim", o->head_dim, "context",
                     (json_int_t)w->n_blocks * KERN_BLOCK_TOKENS, "batch", o->batch,
                     "read_bandwidth", reads, "results", results);
}

base_status bench_attention(const bench_options *o, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    world w = {.o = o, .mem = mem, .n_blocks = (int32_t)(o->context / KERN_BLOCK_TOKENS)};
    BASE_TRY(st, out, world_open(&w));
    BASE_TRY(st, out, measure(&w));
    *json_out = describe(&w);
    st = *json_out != NULL ? BASE_OK : BASE_FAIL(BASE_NO_MEMORY, "JSON of the benchmark");
out:
    world_close(&w);
    return st;
}
