/* A prompt in chunks for each sequence, then decode steps of one token for all, over contexts that count time.  A
 * synthetic prompt is laid out, not computed: pages hold what memory held.  Ranks are threads which own every n-th block; at most as many compute at once as there are processors, so that the time of an op is
 * its own.  What a rank waited is no part of its time.  On a GPU decode steps run once more as the engine runs
 * them: a step makes its tokens, greedy, and begins while the one before runs. */
#include "base/clock.h"
#include "base/random.h"
#include "kernels/comm/comm_threads.h"
#include "kernels/comm/comm_timed.h"
#include "kvshard/calibration.h"
#include "kvshard/shard.h"
#include "launch/bench.h"
#include "launch/bench_gemm.h"
#include "launch/bench_memory.h"
#include "worker/bench/parts.h"
#include "worker/model/forward.h"
#include "worker/model/model.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define SEED         1
#define DECODE_STEPS 32
#define TIMEOUT_MS   600000
#define N_PHASES     3 /* prefill, decode, decode launched ahead */

typedef struct phase { /* of one rank */
    bench_times steps;
    bench_parts parts; /* not waited */
    double busy_ns;    /* their sum */
    double wall_us;
} phase;

typedef struct world world;

typedef struct rank {
    world *world;
    pthread_t thread;
    bench_counter counter; /* of what it asks for */
    kern_ctx *inner, *ctx;
    comm *timed;
    kv_shard *shard;
    forward *f;
    forward *ahead; /* on a GPU: over inner, whose ops nobody waits for */
    int32_t *ids;
    float *logits; /* of rank 0; a mirror */
    bench_seqs seqs;
    phase phases[N_PHASES];
    base_status st;
    char error[256];
} rank;

struct world {
    const bench_options *o;
    const base_alloc *mem;
    model *m;
    kv_calibration *calibration;
    kv_format *format;
    comm *comms[BENCH_MAX_RANKS];
    rank *ranks; /* [n_ranks] */
};

typedef struct rank_bytes { /* what a rank asked for */
    int64_t pages, tails, scratch;
} rank_bytes;

/* A rank over c, with room for its share of a context; *bytes is what that takes. */
static base_status rank_open(const world *w, rank *r, comm *c, int64_t context, rank_bytes *bytes)
{
    base_status st = BASE_OK;
    const bench_options *o = w->o;
    const base_alloc counting = bench_counting_heap(&r->counter);
    const int32_t max_tokens = o->prefill_chunk > o->batch ? o->prefill_chunk : o->batch;
    const forward_limits limits = {
        .max_step_tokens = max_tokens, .max_samples = o->batch, .timeout_ms = TIMEOUT_MS};
    const kv_shard_options shard =
        bench_seqs_options(o->batch, o->n_ranks, context + 2 * DECODE_STEPS, max_tokens);

    BASE_TRY(st, out, kern_ctx_create(o->device, o->threads[0], &counting, &r->inner));
    BASE_TRY(st, out, kern_ctx_create_timed(r->inner, &counting, &r->ctx));
    BASE_TRY(st, out, comm_timed_create(c, r->inner, w->mem, &r->timed));
    BASE_TRY(st, out, forward_create(w->m, w->format, r->ctx, r->timed, &limits, &counting, &r->f));
    bytes->scratch = r->counter.n_bytes;
    r->counter.n_bytes = 0;
    BASE_TRY(st, out, kv_shard_create(w->format, &shard, r->ctx, &counting, &r->shard));
    bytes->pages = shard.n_pages * w->format->page_bytes;
    bytes->tails = r->counter.n_bytes - bytes->pages;
    r->seqs = (bench_seqs){.shard = r->shard,
                           .n_pages = shard.n_pages,
                           .rank = comm_rank(c),
                           .n_ranks = o->n_ranks,
                           .batch = o->batch};
    if (o->device != KERN_DEVICE_CPU) {
        const forward_limits decode = {.max_step_tokens = o->batch,
                                       .max_samples = o->batch,
                                       .timeout_ms = TIMEOUT_MS,
                                       .n_slots = o->batch};
        BASE_TRY(st, out, forward_create(w->m, w->format, r->inner, c, &decode, w->mem, &r->ahead));
    }
    r->ids = w->mem->get(w->mem->ctx, (size_t)max_tokens * sizeof *r->ids);
    r->logits = kern_mirror(r->ctx)->get(kern_mirror(r->ctx)->ctx,
                                         (size_t)o->batch * (size_t)w->m->config.n_vocab *
                                             sizeof *r->logits);
    if (r->ids == NULL || r->logits == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "a step of %d tokens", max_tokens);
    }
out:
    return st;
}

static void rank_close(const world *w, rank *r)
{
    if (r->ctx != NULL) {
        kern_mirror(r->ctx)->put(kern_mirror(r->ctx)->ctx, r->logits);
    }
    w->mem->put(w->mem->ctx, r->ids);
    forward_destroy(r->ahead);
    forward_destroy(r->f);
    kv_shard_destroy(r->shard);
    comm_destroy(r->timed);
    kern_ctx_destroy(r->ctx);
    kern_ctx_destroy(r->inner);
    *r = (rank){0};
}

static void world_close(world *w)
{
    for (int32_t i = 0; i < w->o->n_ranks; i++) {
        if (w->ranks != NULL) {
            rank_close(w, &w->ranks[i]);
        }
        comm_destroy(w->comms[i]);
    }
    w->mem->put(w->mem->ctx, w->ranks);
    kv_format_destroy(w->format);
    kv_calibration_destroy(w->calibration);
    model_close(w->m);
}

static base_status world_open(world *w)
{
    base_status st = BASE_OK;
    const bench_options *o = w->o;
    const long n_online = sysconf(_SC_NPROCESSORS_ONLN);
    kv_policy policy;

    BASE_TRY(st, out, model_open(o->model, w->mem, &w->m));
    BASE_TRY(st, out, kv_policy_parse(o->policies[0], &policy));
    const model_config *c = &w->m->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    BASE_TRY(
        st, out,
        kv_calibration_open(o->policies[0], o->model, w->m->hash, &shape, w->mem, &w->calibration));
    BASE_TRY(st, out,
             kv_format_create_calibrated(&policy, &shape, w->calibration, w->mem, &w->format));
    BASE_TRY(
        st, out,
        comm_threads_create(o->n_ranks, n_online > 0 ? (int32_t)n_online : 1, w->mem, w->comms));
    w->ranks = w->mem->get(w->mem->ctx, (size_t)o->n_ranks * sizeof *w->ranks);
    if (w->ranks == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "%d ranks", o->n_ranks);
    }
out:
    return st;
}

/* Steps of a phase: the slots [begin, end) have n_tokens more each. */
typedef struct step_of {
    forward *f;
    int32_t begin, end;
    int32_t n_tokens;
} step_of;

/* *us_out is the step alone. */
static base_status run_step(rank *r, const step_of *s, double *us_out)
{
    base_status st = BASE_OK;
    const world *w = r->world;
    const kv_step *step = NULL;
    const int32_t n_seqs = s->end - s->begin;
    kv_step_seq seqs[BENCH_MAX_BATCH];
    int32_t last_rows[BENCH_MAX_BATCH];

    for (int32_t i = 0; i < n_seqs; i++) {
        const int64_t position = r->seqs.positions[s->begin + i];
        seqs[i] = (kv_step_seq){s->begin + i, s->n_tokens, position};
        last_rows[i] = (i + 1) * s->n_tokens - 1;
        for (int32_t t = 0; t < s->n_tokens; t++) {
            const uint64_t u = base_random_u64(SEED, 2 + (uint64_t)i, (uint64_t)(position + t));
            r->ids[i * s->n_tokens + t] = (int32_t)(u % (uint64_t)w->m->config.n_vocab);
        }
    }
    const int64_t begun = base_now_ns();
    for (int32_t slot = s->begin; slot < s->end; slot++) {
        BASE_TRY(st, out, bench_seqs_grow(&r->seqs, slot, s->n_tokens));
    }
    BASE_TRY(st, out, kv_shard_begin_step(r->shard, seqs, n_seqs, &step));
    BASE_TRY(st, out,
             forward_step(s->f, r->shard, step, r->ids, last_rows, n_seqs,
                          comm_rank(r->timed) == 0 ? r->logits : NULL));
    *us_out = (double)(base_now_ns() - begun) * 1e-3;
    for (int32_t slot = s->begin; slot < s->end; slot++) {
        r->seqs.positions[slot] += s->n_tokens;
    }
out:
    return st;
}

static base_status run_ahead(rank *r, phase *p)
{
    base_status st = BASE_OK;
    comm *own = r->world->comms[comm_rank(r->timed)];
    double us[DECODE_STEPS];

    (void)comm_threads_take_waited(own);
    BASE_TRY(st, out, bench_seqs_decode(&r->seqs, r->ahead, DECODE_STEPS, 1, us));
    for (int32_t i = 0; i < DECODE_STEPS; i++) {
        bench_times_add(&p->steps, us[i]);
        p->wall_us += us[i];
    }
    p->busy_ns = p->wall_us * 1e3 - (double)comm_threads_take_waited(own);
    bench_parts_rest(&p->parts, p->busy_ns);
out:
    return st;
}

/* Steps of s->n_tokens, or fewer at the end, until n_tokens are through. */
static base_status run_phase(rank *r, const step_of *s, int64_t n_tokens, phase *p)
{
    comm *own = r->world->comms[comm_rank(r->timed)];

    double phase_us = 0.0;
    (void)comm_threads_take_waited(own);
    for (int64_t at = 0; at < n_tokens; at += s->n_tokens) {
        double us = 0.0;
        step_of one = *s;
        one.n_tokens = n_tokens - at < s->n_tokens ? (int32_t)(n_tokens - at) : s->n_tokens;
        const base_status st = run_step(r, &one, &us);
        if (st != BASE_OK) {
            return st;
        }
        bench_times_add(&p->steps, us);
        phase_us += us;
    }
    p->wall_us += phase_us;
    const double waited = (double)comm_threads_take_waited(own);
    bench_parts_take(&p->parts, r->ctx, r->timed);
    p->parts.ns[BENCH_EXCHANGE] -= waited;
    p->busy_ns += phase_us * 1e3 - waited;
    bench_parts_rest(&p->parts, p->busy_ns);
    return BASE_OK;
}

static void *run_rank(void *arg)
{
    rank *r = arg;
    const bench_options *o = r->world->o;
    comm *own = r->world->comms[comm_rank(r->timed)];

    comm_threads_enter(own);
    if (o->synthetic) {
        r->st = bench_seqs_lay_out(&r->seqs, o->context, o->prefill_chunk);
    }
    for (int32_t slot = 0; slot < o->batch && !o->synthetic && r->st == BASE_OK; slot++) {
        const step_of chunk = {r->f, slot, slot + 1, o->prefill_chunk};
        r->st = run_phase(r, &chunk, o->context, &r->phases[0]);
    }
    if (r->st == BASE_OK) {
        const step_of decode = {r->f, 0, o->batch, 1};
        r->st = run_phase(r, &decode, DECODE_STEPS, &r->phases[1]);
    }
    if (r->st == BASE_OK && r->ahead != NULL) {
        r->st = run_ahead(r, &r->phases[2]);
    }
    if (r->st != BASE_OK) {
        (void)snprintf(r->error, sizeof r->error, "%s", base_last_error());
    }
    comm_threads_leave(own);
    return NULL;
}

/* All ranks, each on a thread.  The first failure is that of the run. */
static base_status run_ranks(world *w)
{
    int32_t n_started = 0;
    base_status st = BASE_OK;

    while (n_started < w->o->n_ranks &&
           pthread_create(&w->ranks[n_started].thread, NULL, run_rank, &w->ranks[n_started]) == 0) {
        n_started++;
    }
    if (n_started < w->o->n_ranks) { /* the others learn it when they wait for it */
        comm_threads_leave(w->comms[n_started]);
        st = BASE_FAIL(BASE_NO_MEMORY, "thread of rank %d of %d could not be started", n_started,
                       w->o->n_ranks);
    }
    for (int32_t i = 0; i < n_started; i++) {
        rank *r = &w->ranks[i];
        (void)pthread_join(r->thread, NULL);
        if (st == BASE_OK && r->st != BASE_OK) {
            st = BASE_FAIL(r->st, "rank %d: %s", i, r->error);
        }
    }
    return st;
}

/* The sums over ranks of one phase. */
static json_t *describe_phase(const world *w, int index, const char *name, int64_t n_tokens)
{
    phase sum = {.busy_ns = 0.0};
    json_t *ops = json_array();
    phase *first = &w->ranks[0].phases[index];

    for (int32_t i = 0; i < w->o->n_ranks; i++) {
        const phase *p = &w->ranks[i].phases[index];
        for (int k = 0; k < BENCH_N_PARTS; k++) {
            sum.parts.ns[k] += p->parts.ns[k];
            sum.parts.n_bytes[k] += p->parts.n_bytes[k];
        }
        sum.busy_ns += p->busy_ns;
    }
    for (int k = 0; k < BENCH_N_PARTS; k++) {
        const double ns = sum.parts.ns[k];
        (void)json_array_append_new(ops, json_pack("{s:s, s:f, s:f, s:f}", "op",
                                                   bench_part_name((bench_part)k), "ms", ns * 1e-6,
                                                   "share", ns / sum.busy_ns, "gb_per_s",
                                                   ns > 0.0 ? sum.parts.n_bytes[k] / ns : 0.0));
    }
    return json_pack("{s:s, s:I, s:i, s:f, s:f, s:f, s:f, s:f, s:o}", "phase", name, "tokens",
                     (json_int_t)n_tokens, "steps", first->steps.n, "ms", first->wall_us * 1e-3,
                     "busy_ms_of_all_ranks", sum.busy_ns * 1e-6, "median_step_ms",
                     bench_times_at(&first->steps, 0.5) * 1e-3, "p10_step_ms",
                     bench_times_at(&first->steps, 0.1) * 1e-3, "p90_step_ms",
                     bench_times_at(&first->steps, 0.9) * 1e-3, "ops", ops);
}

/* Memory of one rank at the run's context and, made for it and put back, at two others. */
static base_status describe_memory(world *w, json_t *memory)
{
    base_status st = BASE_OK;
    const int64_t contexts[] = {w->o->context, 4096, 65536};

    for (size_t i = 0; i < sizeof contexts / sizeof contexts[0]; i++) {
        rank_bytes b = {0};
        rank *r = &w->ranks[0];
        BASE_TRY(st, out, rank_open(w, r, w->comms[0], contexts[i], &b));
        (void)json_array_append_new(
            memory, json_pack("{s:I, s:I, s:I, s:I, s:I}", "context", (json_int_t)contexts[i],
                              "weight_bytes", (json_int_t)bench_weight_bytes(w->m), "page_bytes",
                              (json_int_t)b.pages, "tail_bytes", (json_int_t)b.tails,
                              "scratch_bytes", (json_int_t)b.scratch));
        rank_close(w, r);
    }
out:
    return st;
}

/* The phases that ran. */
static json_t *describe_phases(const world *w)
{
    json_t *phases = json_array();
    if (!w->o->synthetic) {
        (void)json_array_append_new(phases,
                                    describe_phase(w, 0, "prefill", w->o->context * w->o->batch));
    }
    (void)json_array_append_new(
        phases, describe_phase(w, 1, "decode", (int64_t)DECODE_STEPS * w->o->batch));
    if (w->ranks[0].ahead != NULL) {
        (void)json_array_append_new(phases, describe_phase(w, 2, "decode, launched ahead",
                                                           (int64_t)DECODE_STEPS * w->o->batch));
    }
    return phases;
}

base_status bench_step(const bench_options *o, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    world w = {.o = o, .mem = mem};
    json_t *memory = json_array();
    json_t *gemm = NULL;
    const bool on_cpu = o->device == KERN_DEVICE_CPU;

    BASE_TRY(st, out, world_open(&w));
    if (on_cpu) { /* a GPU's memory is not the allocator's to count */
        BASE_TRY(st, out, describe_memory(&w, memory));
    }
    for (int32_t i = 0; i < o->n_ranks; i++) {
        rank_bytes unused;
        BASE_TRY(st, out, rank_open(&w, &w.ranks[i], w.comms[i], o->context, &unused));
        w.ranks[i].world = &w;
    }
    BASE_TRY(st, out, run_ranks(&w));
    if (on_cpu) {
        BASE_TRY(st, out, bench_gemm(w.m, o->prefill_chunk, mem, &gemm));
    }
    *json_out =
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:i, s:O, s:O?, s:o}", "bench", "step",
                  "device", kern_device_name(o->device), "model", w.m->name, "policy",
                  o->policies[0], "ranks", o->n_ranks, "threads", o->threads[0], "batch", o->batch,
                  "context", (json_int_t)o->context, "prefill_chunk", o->prefill_chunk, "memory",
                  memory, "gemm", gemm, "phases", describe_phases(&w));
    st = *json_out != NULL ? BASE_OK : BASE_FAIL(BASE_NO_MEMORY, "JSON of the benchmark");
out:
    json_decref(gemm);
    json_decref(memory);
    world_close(&w);
    return st;
}
