#include "worker/bench/prefill.h"

#include "base/clock.h"
#include "base/random.h"
#include "kernels/comm/comm_timed.h"
#include "worker/bench/seqs.h"

#define SEED 1

static int32_t step_tokens(const bench_chunks *c)
{
    return c->n_tokens < c->chunk ? (int32_t)c->n_tokens : c->chunk;
}

static forward_limits limits_of(const bench_chunks *c)
{
    return (forward_limits){.max_step_tokens = step_tokens(c),
                            .max_samples = 1,
                            .timeout_ms = BENCH_TIMEOUT_MS,
                            .n_slots = 1};
}

static kv_shard_options shard_of(const bench_prompt *p)
{
    const bench_chunks *c = p->chunks;
    return bench_seqs_options(1, p->group->m.world.n_ranks, c->n_tokens, step_tokens(c));
}

int64_t bench_prompt_bytes(const bench_prompt *p)
{
    const kv_shard_options shard = shard_of(p);
    const forward_limits limits = limits_of(p->chunks);
    const member *m = &p->group->m;
    return kv_shard_bytes(p->format, &shard) +
           forward_scratch_bytes(&m->model->config, &m->model->split, &limits, m->world.n_ranks);
}

typedef struct run { /* what steps of a prompt need */
    const bench_prompt *p;
    kv_shard *shard;
    forward *f;
    int32_t *ids; /* [step_tokens] */
    bench_seqs seqs;
} run;

static void run_close(run *r)
{
    base_heap.put(base_heap.ctx, r->ids);
    forward_destroy(r->f);
    kv_shard_destroy(r->shard);
}

/* Over the group's context and comm, or others over these.  whole: with pages for the whole prompt, not for a chunk. */
static base_status run_open(run *r, const bench_prompt *p, kern_ctx *ctx, comm *tensors, bool whole)
{
    base_status st = BASE_OK;
    const member *m = &p->group->m;
    const int32_t n_tokens = step_tokens(p->chunks);
    const forward_limits limits = limits_of(p->chunks);
    kv_shard_options shard = shard_of(p);

    if (!whole) {
        shard.n_pages = bench_seqs_options(1, m->world.n_ranks, n_tokens, n_tokens).n_pages;
    }
    *r = (run){.p = p};
    r->ids = base_heap.get(base_heap.ctx, (size_t)n_tokens * sizeof *r->ids);
    if (r->ids == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "ids of %d tokens", n_tokens);
        goto out;
    }
    BASE_TRY(st, out, kv_shard_create(p->format, &shard, ctx, &base_heap, &r->shard));
    BASE_TRY(st, out,
             forward_create(m->model, p->format, ctx, tensors, &limits, &base_heap, &r->f));
    r->seqs = (bench_seqs){.shard = r->shard,
                           .n_pages = shard.n_pages,
                           .rank = m->world.rank,
                           .n_ranks = m->world.n_ranks,
                           .batch = 1};
out:
    return st;
}

/* The sequence's next n_tokens. */
static base_status begin_chunk(run *r, int32_t n_tokens)
{
    base_status st = BASE_OK;
    const kv_step_seq seq = {0, n_tokens, r->seqs.positions[0]};
    const uint64_t n_vocab = (uint64_t)r->p->group->m.model->config.n_vocab;
    const kv_step *step = NULL;

    for (int32_t t = 0; t < n_tokens; t++) {
        const uint64_t u = base_random_u64(SEED, 0, (uint64_t)(seq.position + t));
        r->ids[t] = (int32_t)(u % n_vocab);
    }
    BASE_TRY(st, out, bench_seqs_grow(&r->seqs, 0, n_tokens));
    BASE_TRY(st, out, kv_shard_begin_step(r->shard, &seq, 1, &step));
    BASE_TRY(st, out, forward_begin(r->f, r->shard, step, r->ids, NULL, 0));
    r->seqs.positions[0] += n_tokens;
out:
    return st;
}

/* When all ranks are there. */
static base_status begin_together(const run *r, int64_t *begun_out)
{
    double nothing = 0.0;
    const base_status st = bench_group_largest(r->p->group, &nothing, 1);
    *begun_out = base_now_ns();
    return st;
}

static base_status time_chunk(run *r, int32_t n_tokens, double *ms_out)
{
    base_status st = BASE_OK;
    int64_t begun = 0;
    forward_made made;

    BASE_TRY(st, out, begin_together(r, &begun));
    BASE_TRY(st, out, begin_chunk(r, n_tokens));
    BASE_TRY(st, out, forward_end(r->f, &made));
    *ms_out = (double)(base_now_ns() - begun) * 1e-6;
out:
    return st;
}

/* A first chunk, which loads kernels and fills pages, for a sequence that begins again. */
static base_status warm_up(run *r)
{
    double unused = 0.0;
    const base_status st = time_chunk(r, step_tokens(r->p->chunks), &unused);
    bench_seqs_clear(&r->seqs, 0);
    return st;
}

/* The i-th that is timed, with what lies before it laid out. */
static base_status time_place(run *r, int32_t i, double *ms_out)
{
    base_status st = BASE_OK;
    const bench_chunks *c = r->p->chunks;

    BASE_TRY(st, out,
             bench_seqs_lay_out(&r->seqs, c->begins[i] - r->seqs.positions[0], step_tokens(c)));
    st = time_chunk(r, bench_chunks_tokens(c, i), ms_out);
out:
    return st;
}

base_status bench_prompt_time(const bench_prompt *p, double *ms_out)
{
    base_status st = BASE_OK;
    const member *m = &p->group->m;
    run r;

    BASE_TRY(st, out, run_open(&r, p, m->ctx, m->tensors, false));
    BASE_TRY(st, out, warm_up(&r));
    for (int32_t i = 0; i < p->chunks->n_timed; i++) {
        BASE_TRY(st, out, time_place(&r, i, &ms_out[i]));
    }
    st = bench_group_largest(p->group, ms_out, p->chunks->n_timed);
out:
    run_close(&r);
    return st;
}

base_status bench_prompt_time_parts(const bench_prompt *p, double *ms_out)
{
    base_status st = BASE_OK;
    const member *m = &p->group->m;
    kern_ctx *ctx = NULL;
    comm *tensors = NULL;
    bench_parts parts = {{0}, {0}};
    run r = {.p = p};

    BASE_TRY(st, out, kern_ctx_create_timed(m->ctx, &base_heap, &ctx));
    BASE_TRY(st, out, comm_timed_create(m->tensors, m->ctx, &base_heap, &tensors));
    BASE_TRY(st, out, run_open(&r, p, ctx, tensors, false));
    BASE_TRY(st, out, warm_up(&r));
    bench_parts_take(&parts, ctx, tensors);
    for (int32_t i = 0; i < p->chunks->n_timed; i++) {
        double ms = 0.0;
        parts = (bench_parts){{0}, {0}};
        BASE_TRY(st, out, time_place(&r, i, &ms));
        bench_parts_take(&parts, ctx, tensors);
        bench_parts_rest(&parts, ms * 1e6);
        for (int32_t k = 0; k < BENCH_N_PARTS; k++) {
            ms_out[i * BENCH_N_PARTS + k] = parts.ns[k] * 1e-6;
        }
    }
    st = bench_group_largest(p->group, ms_out, p->chunks->n_timed * BENCH_N_PARTS);
out:
    run_close(&r);
    comm_destroy(tensors);
    kern_ctx_destroy(ctx);
    return st;
}

base_status bench_prompt_time_whole(const bench_prompt *p, double *ms_out)
{
    base_status st = BASE_OK;
    const member *m = &p->group->m;
    const int64_t n_chunks = (p->chunks->n_tokens + p->chunks->chunk - 1) / p->chunks->chunk;
    const int64_t n_ahead = m->seat.device == KERN_DEVICE_CUDA;
    int64_t begun = 0;
    int64_t n_begun = 0;
    forward_made made;
    run r;

    BASE_TRY(st, out, run_open(&r, p, m->ctx, m->tensors, true));
    BASE_TRY(st, out, warm_up(&r));
    BASE_TRY(st, out, begin_together(&r, &begun));
    for (int64_t i = 0; i < n_chunks; i++) {
        for (; n_begun < n_chunks && n_begun <= i + n_ahead; n_begun++) {
            const int64_t n_left = p->chunks->n_tokens - r.seqs.positions[0];
            const int32_t n = step_tokens(p->chunks);
            BASE_TRY(st, out, begin_chunk(&r, n_left < n ? (int32_t)n_left : n));
        }
        BASE_TRY(st, out, forward_end(r.f, &made));
    }
    *ms_out = (double)(base_now_ns() - begun) * 1e-6;
    st = bench_group_largest(p->group, ms_out, 1);
out:
    run_close(&r);
    return st;
}
