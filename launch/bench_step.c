/* One rank's prompt in chunks, then decode steps one token each, over contexts that count time; on a GPU decode
 * steps once more as the engine runs them, without waiting for each op. */
#include "base/clock.h"
#include "base/random.h"
#include "kernels/comm/comm_timed.h"
#include "kernels/timed.h"
#include "kvshard/owner.h"
#include "kvshard/shard.h"
#include "launch/bench.h"
#include "worker/model/forward.h"
#include "worker/model/model.h"

#include <string.h>

#define SEED         1
#define DECODE_STEPS 32
#define TIMEOUT_MS   60000

typedef struct world {
    const bench_options *o;
    model *m;
    kv_format *format;
    kern_ctx *inner, *ctx;
    comm *self, *ranks;
    kv_shard *shard;
    forward *f;
    forward *ahead; /* over inner: nobody waits for its ops */
    int32_t *ids;
    float *logits;
    int64_t position;
    int32_t n_pages_used;
    int64_t scratch_bytes;
} world;

/* Which line of the report an op belongs to. */
static const char *const kinds[] = {"attention", "gemm", "norm",     "rope",
                                    "append",    "pack", "exchange", "merge"};
#define N_KINDS  (sizeof kinds / sizeof kinds[0])
#define EXCHANGE 6

static size_t kind_of(kern_op op) /* N_KINDS: other */
{
    switch (op) {
    case KERN_OP_attn: return 0;
    case KERN_OP_gemm: return 1;
    case KERN_OP_rmsnorm: return 2;
    case KERN_OP_rope: return 3;
    case KERN_OP_append: return 4;
    case KERN_OP_pack: return 5;
    case KERN_OP_merge: return 7;
    default: return N_KINDS; /* embed, gather, basis, bias, swiglu */
    }
}

static base_status world_open(world *w, const base_alloc *mem)
{
    const bench_options *o = w->o;
    base_status st = BASE_OK;
    kv_policy policy;
    const int64_t n_blocks = kv_blocks_of_tokens(o->context + 2 * DECODE_STEPS) + 1;
    const forward_limits limits = {o->prefill_chunk, 1, TIMEOUT_MS};

    BASE_TRY(st, out, model_open(o->model, mem, &w->m));
    BASE_TRY(st, out, kv_policy_parse(o->policies[0], &policy));
    const model_config *c = &w->m->config;
    const kv_shape shape = {c->n_layers, c->n_kv_heads, c->head_dim};
    BASE_TRY(st, out, kv_format_create(&policy, &shape, mem, &w->format));
    BASE_TRY(st, out, kern_ctx_create(o->device, o->threads[0], mem, &w->inner));
    BASE_TRY(st, out, kern_ctx_create_timed(w->inner, mem, &w->ctx));
    BASE_TRY(st, out, comm_self_create(mem, &w->self));
    BASE_TRY(st, out, comm_timed_create(w->self, mem, &w->ranks));
    const kv_shard_options shard = {.n_pages = (int32_t)n_blocks,
                                    .n_slots = 1,
                                    .max_step_tokens = o->prefill_chunk,
                                    .max_blocks_per_slot = (int32_t)n_blocks};
    BASE_TRY(st, out, kv_shard_create(w->format, &shard, w->ctx, mem, &w->shard));
    BASE_TRY(st, out, forward_create(w->m, w->format, w->ctx, w->ranks, &limits, mem, &w->f));
    if (o->device != KERN_DEVICE_CPU) {
        BASE_TRY(st, out,
                 forward_create(w->m, w->format, w->inner, w->self, &limits, mem, &w->ahead));
    }
    w->scratch_bytes = forward_scratch_bytes(c, &limits, 1);
    w->ids = mem->get(mem->ctx, (size_t)o->prefill_chunk * sizeof *w->ids);
    w->logits =
        kern_mirror(w->ctx)->get(kern_mirror(w->ctx)->ctx, (size_t)c->n_vocab * sizeof *w->logits);
    if (w->ids == NULL || w->logits == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "a step of %d tokens", o->prefill_chunk);
    }
out:
    return st;
}

static void world_close(world *w, const base_alloc *mem)
{
    if (w->ctx != NULL) {
        kern_mirror(w->ctx)->put(kern_mirror(w->ctx)->ctx, w->logits);
    }
    mem->put(mem->ctx, w->ids);
    forward_destroy(w->ahead);
    forward_destroy(w->f);
    kv_shard_destroy(w->shard);
    comm_destroy(w->ranks);
    comm_destroy(w->self);
    kern_ctx_destroy(w->ctx);
    kern_ctx_destroy(w->inner);
    kv_format_destroy(w->format);
    model_close(w->m);
}

/* The next n_tokens of the sequence; *us_out is the step alone. */
static base_status run_step(world *w, forward *f, int32_t n_tokens, double *us_out)
{
    base_status st = BASE_OK;
    const kv_step *step = NULL;
    const kv_step_seq seq = {.n_tokens = n_tokens, .position = w->position};
    const int32_t last_row = n_tokens - 1;

    for (int32_t i = 0; i < n_tokens; i++) {
        w->ids[i] = (int32_t)(base_random_u64(SEED, 2, (uint64_t)(w->position + i)) %
                              (uint64_t)w->m->config.n_vocab);
    }
    const int64_t begun = base_now_ns();
    while (w->n_pages_used < kv_blocks_of_tokens(w->position + n_tokens)) {
        BASE_TRY(st, out, kv_shard_add_page(w->shard, 0, w->n_pages_used, w->n_pages_used));
        w->n_pages_used++;
    }
    BASE_TRY(st, out, kv_shard_begin_step(w->shard, &seq, 1, &step));
    BASE_TRY(st, out, forward_step(f, w->shard, step, w->ids, &last_row, 1, w->logits));
    *us_out = (double)(base_now_ns() - begun) * 1e-3;
    w->position += n_tokens;
out:
    return st;
}

/* Takes what was counted during n_steps steps of total_us. */
static json_t *take_shares(world *w, const char *name, int64_t n_tokens, bench_times *steps,
                           double total_us)
{
    kern_op_time times[KERN_N_OPS];
    double ns[N_KINDS + 1] = {0};
    double n_bytes[N_KINDS + 1] = {0};
    int64_t exchange_ns = 0;
    int64_t n_exchanges = 0;
    double counted = 0.0;
    json_t *ops = json_array();

    kern_timed_take(w->ctx, times);
    comm_timed_take(w->ranks, &exchange_ns, &n_exchanges);
    for (int i = 0; i < KERN_N_OPS; i++) {
        ns[kind_of((kern_op)i)] += (double)times[i].ns;
        n_bytes[kind_of((kern_op)i)] += (double)times[i].n_bytes;
    }
    ns[EXCHANGE] = (double)exchange_ns;
    for (size_t i = 0; i < N_KINDS; i++) {
        counted += ns[i];
    }
    ns[N_KINDS] = total_us * 1e3 - counted; /* all that is not named */
    for (size_t i = 0; i <= N_KINDS; i++) {
        (void)json_array_append_new(
            ops, json_pack("{s:s, s:f, s:f, s:f}", "op", i < N_KINDS ? kinds[i] : "other", "ms",
                           ns[i] * 1e-6, "share", ns[i] * 1e-3 / total_us, "gb_per_s",
                           ns[i] > 0.0 ? n_bytes[i] / ns[i] : 0.0));
    }
    return json_pack("{s:s, s:I, s:i, s:f, s:f, s:f, s:f, s:o}", "phase", name, "tokens",
                     (json_int_t)n_tokens, "steps", steps->n, "ms", total_us * 1e-3,
                     "median_step_ms", bench_times_at(steps, 0.5) * 1e-3, "p10_step_ms",
                     bench_times_at(steps, 0.1) * 1e-3, "p90_step_ms",
                     bench_times_at(steps, 0.9) * 1e-3, "ops", ops);
}

static base_status run_phase(world *w, forward *f, const char *name, int64_t n_tokens,
                             int32_t chunk, json_t *phases)
{
    bench_times steps = {.n = 0};
    double total_us = 0.0;
    for (int64_t at = 0; at < n_tokens; at += chunk) {
        double us = 0.0;
        const int32_t n = n_tokens - at < chunk ? (int32_t)(n_tokens - at) : chunk;
        const base_status st = run_step(w, f, n, &us);
        if (st != BASE_OK) {
            return st;
        }
        bench_times_add(&steps, us);
        total_us += us;
    }
    (void)json_array_append_new(phases, take_shares(w, name, n_tokens, &steps, total_us));
    return BASE_OK;
}

base_status bench_step(const bench_options *o, const base_alloc *mem, json_t **json_out)
{
    base_status st = BASE_OK;
    world w = {.o = o};
    json_t *phases = json_array();

    BASE_TRY(st, out, world_open(&w, mem));
    BASE_TRY(st, out, run_phase(&w, w.f, "prefill", o->context, o->prefill_chunk, phases));
    BASE_TRY(st, out, run_phase(&w, w.f, "decode", DECODE_STEPS, 1, phases));
    if (o->device != KERN_DEVICE_CPU) {
        BASE_TRY(st, out,
                 run_phase(&w, w.ahead, "decode, launched ahead", DECODE_STEPS, 1, phases));
    }
    *json_out =
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:I, s:O}", "bench", "step", "device",
                  kern_device_name(o->device), "model", w.m->name, "policy", o->policies[0],
                  "threads", o->threads[0], "context", (json_int_t)o->context, "prefill_chunk",
                  o->prefill_chunk, "scratch_bytes", (json_int_t)w.scratch_bytes, "phases", phases);
    st = *json_out != NULL ? BASE_OK : BASE_FAIL(BASE_NO_MEMORY, "JSON of the benchmark");
out:
    json_decref(phases);
    world_close(&w, mem);
    return st;
}
