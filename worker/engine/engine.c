#include "worker/engine/engine.h"

#include "base/clock.h"
#include "base/log.h"
#include "kvshard/owner.h"
#include "worker/engine/lead.h"
#include "worker/engine/pace.h"
#include "worker/engine/plan.h"
#include "worker/model/rows.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#define IDLE_SLICE_US 50000 /* how often an idle rank 0 looks at `stop` */
#define MAX_COMMANDS  4096  /* between two steps, so that a flood cannot hold the steps up */

typedef struct flight { /* a step under way */
    int64_t begun_us;
    int64_t deadline_ms; /* once the one before has ended */
    int32_t n_tokens;
} flight;

struct engine {
    comm *ranks; /* for plans */
    comm *tensors;
    kern_ctx *ctx;
    kv_shard *shard;
    forward *forward;
    step_plan *plan;
    lead *lead;                     /* rank 0 */
    kv_step_seq *seqs;              /* [max_batch] */
    int32_t *ids;                   /* [max_tokens] */
    forward_pick *picks;            /* [max_batch]; but for rank 0's only their tokens count */
    uint64_t *heartbeats;           /* [n_ranks] */
    flight flights[LEAD_MAX_STEPS]; /* n_flights, the oldest first */
    int32_t n_flights;
    int32_t n_ahead;   /* steps that may be under way while the next one is planned */
    int64_t landed_us; /* when the last one ended */
    atomic_int_least64_t due_us;
    uint64_t step;
    bool met; /* a first plan has reached everyone */
    step_pace pace;
    int32_t rank;
    base_alloc mem;
};

static base_status check_options(const engine_options *o, const model_config *config)
{
    if (o->max_batch < 1 || o->max_batch > PLAN_MAX_SEQS) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_batch %d, allowed 1..%d", o->max_batch,
                         PLAN_MAX_SEQS);
    }
    if (o->prefill_chunk < KERN_BLOCK_TOKENS || o->prefill_chunk > ENGINE_MAX_PREFILL_CHUNK ||
        o->prefill_chunk % KERN_BLOCK_TOKENS != 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "prefill_chunk %d, allowed are multiples of %d up to %d",
                         o->prefill_chunk, KERN_BLOCK_TOKENS, ENGINE_MAX_PREFILL_CHUNK);
    }
    if (o->step_goal_ms < 0) {
        return BASE_FAIL(BASE_BAD_INPUT, "step_goal_ms %lld, allowed 0 and more",
                         (long long)o->step_goal_ms);
    }
    if (o->n_ahead < 0 || o->n_ahead >= LEAD_MAX_STEPS) {
        return BASE_FAIL(BASE_BAD_INPUT, "n_ahead %d, allowed 0..%d", o->n_ahead,
                         LEAD_MAX_STEPS - 1);
    }
    if (o->max_context < 2 || o->max_context > config->max_context) {
        return BASE_FAIL(BASE_BAD_INPUT, "max_context %lld, allowed 2..%lld",
                         (long long)o->max_context, (long long)config->max_context);
    }
    return BASE_OK;
}

static void *take(const base_alloc *mem, int32_t n, size_t bytes)
{
    return mem->get(mem->ctx, (size_t)n * bytes);
}

static base_status create_arrays(engine *e, int32_t max_batch, int32_t max_tokens)
{
    const base_alloc *mem = &e->mem;
    e->seqs = take(mem, max_batch, sizeof *e->seqs);
    e->ids = take(mem, max_tokens, sizeof *e->ids);
    e->heartbeats = take(mem, comm_size(e->ranks), sizeof *e->heartbeats);
    e->picks = take(mem, max_batch, sizeof *e->picks);
    if (e->seqs == NULL || e->ids == NULL || e->heartbeats == NULL || e->picks == NULL) {
        return BASE_FAIL(BASE_NO_MEMORY, "engine of %d sequences", max_batch);
    }
    return BASE_OK;
}

void engine_limits(const engine_options *options, kv_shard_options *shard_out,
                   forward_limits *forward_out)
{
    const int32_t max_tokens = options->prefill_chunk + options->max_batch;
    const int64_t max_blocks = kv_blocks_of_tokens(options->max_context);
    *shard_out = (kv_shard_options){.n_pages = options->n_pages,
                                    .n_slots = options->max_batch,
                                    .max_step_tokens = max_tokens,
                                    .max_blocks_per_slot = (int32_t)max_blocks};
    *forward_out = (forward_limits){.max_step_tokens = max_tokens,
                                    .max_samples = options->max_batch,
                                    .timeout_ms = ENGINE_STEP_MS,
                                    .n_slots = options->max_batch};
}

static step_pace pace_of(const model *m, int32_t n_ranks)
{
    const step_pace p = {.shared_from = model_rows_shortest(&m->split, n_ranks),
                         .n_ranks = n_ranks};
    return p;
}

base_status engine_create(const model *m, const kv_format *format, kern_ctx *ctx,
                          const engine_comms *comms, const engine_options *options,
                          const base_alloc *mem, engine **engine_out)
{
    base_status st = BASE_OK;
    engine *e = NULL;
    kv_shard_options shard_options;
    forward_limits limits;

    BASE_TRY(st, out, check_options(options, &m->config));
    e = mem->get(mem->ctx, sizeof *e);
    if (e == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "engine");
        goto out;
    }
    e->mem = *mem;
    e->ranks = comms->plans;
    e->tensors = comms->tensors;
    e->ctx = ctx;
    e->rank = comm_rank(e->ranks);
    e->n_ahead = options->n_ahead;
    e->pace = pace_of(m, comm_size(e->ranks));
    engine_limits(options, &shard_options, &limits);
    BASE_TRY(st, out, kv_shard_create(format, &shard_options, ctx, mem, &e->shard));
    BASE_TRY(st, out, forward_create(m, format, ctx, comms->tensors, &limits, mem, &e->forward));
    BASE_TRY(st, out, step_plan_create(options->max_batch, limits.max_step_tokens, mem, &e->plan));
    BASE_TRY(st, out, create_arrays(e, options->max_batch, limits.max_step_tokens));
    if (e->rank == 0) {
        BASE_TRY(st, out,
                 lead_create(options, comm_size(e->ranks), m->config.n_vocab, mem, &e->lead));
    }
    *engine_out = e;
    e = NULL;

out:
    engine_destroy(e);
    return st;
}

void engine_destroy(engine *e)
{
    if (e == NULL) {
        return;
    }
    const base_alloc mem = e->mem;
    lead_destroy(e->lead);
    mem.put(mem.ctx, e->heartbeats);
    mem.put(mem.ctx, e->picks);
    mem.put(mem.ctx, e->ids);
    mem.put(mem.ctx, e->seqs);
    step_plan_destroy(e->plan);
    forward_destroy(e->forward);
    kv_shard_destroy(e->shard);
    mem.put(mem.ctx, e);
}

/* ---- a step, on every rank ---- */

/* The plan in the words of cache and forward. */
static base_status lay_out(engine *e, const kv_step **step_out, int32_t *n_made_out)
{
    base_status st = BASE_OK;
    const step_plan *plan = e->plan;
    int32_t n_made = 0;

    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const plan_seq *s = &plan->seqs[i];
        if (s->clears) {
            kv_shard_clear_slot(e->shard, s->slot);
        }
        e->seqs[i] = (kv_step_seq){s->slot, s->n_tokens, s->position};
        for (int32_t t = s->first_token; t < s->first_token + s->n_tokens; t++) {
            e->ids[t] = plan->ids[t] == PLAN_LAST_TOKEN ? -1 - s->slot : plan->ids[t];
        }
        if (s->samples) {
            e->picks[n_made++].token = s->first_token + s->n_tokens - 1;
        }
    }
    for (int32_t i = 0; i < plan->n_pages; i++) {
        const plan_page *p = &plan->pages[i];
        if (p->rank == e->rank) {
            BASE_TRY(st, out, kv_shard_add_page(e->shard, p->slot, p->block, p->page));
        }
    }
    BASE_TRY(st, out, kv_shard_begin_step(e->shard, e->seqs, plan->n_seqs, step_out));
    *n_made_out = n_made;

out:
    return st;
}

/* A step begins when the one before it has ended.  Its ops are called earlier, which may wait for the device too. */
static void set_due(engine *e, const flight *first)
{
    atomic_store(&e->due_us, first == NULL ? 0 : base_now_us() + first->deadline_ms * 1000);
}

static base_status begin_step(engine *e)
{
    base_status st = BASE_OK;
    const step_plan *plan = e->plan;
    const flight f = {base_now_us(), pace_deadline_ms(&e->pace, plan->n_tokens), plan->n_tokens};
    const kv_step *step = NULL;
    int32_t n_made = 0;

    if (e->n_flights == 0) {
        set_due(e, &f);
    }

    BASE_TRY(st, out, lay_out(e, &step, &n_made));
    if (e->rank == 0) {
        n_made = lead_picks(e->lead, e->picks);
    }
    forward_set_timeout(e->forward, f.deadline_ms);
    BASE_TRY(st, out, comm_set_limit(e->tensors, pace_wait_ms(f.deadline_ms)));
    BASE_TRY(st, out, forward_begin(e->forward, e->shard, step, e->ids, e->picks, n_made));
    e->flights[e->n_flights++] = f;

out:
    return st;
}

/* Waits for the oldest step under way. */
static base_status end_step(engine *e, const engine_io *io)
{
    base_status st = BASE_OK;
    const flight f = e->flights[0];
    forward_made made;

    BASE_TRY(st, out, forward_end(e->forward, &made));
    const int64_t now_us = base_now_us();
    pace_note(&e->pace, now_us - (f.begun_us > e->landed_us ? f.begun_us : e->landed_us),
              f.n_tokens);
    e->landed_us = now_us;
    e->n_flights--;
    memmove(e->flights, e->flights + 1, (size_t)e->n_flights * sizeof *e->flights);
    set_due(e, e->n_flights > 0 ? e->flights : NULL);
    if (e->rank == 0) {
        lead_commit(e->lead, io, &made);
    }

out:
    return st;
}

/* Until n_left steps are under way. */
static base_status end_steps(engine *e, const engine_io *io, int32_t n_left)
{
    base_status st = BASE_OK;
    while (st == BASE_OK && e->n_flights > n_left) {
        st = end_step(e, io);
    }
    return st;
}

/* Every rank says that it is there: a broadcast alone would not tell rank 0 of a hung one. */
static base_status run_heartbeat(engine *e)
{
    return comm_all_gather(e->ranks, &e->plan->step, e->heartbeats, sizeof e->plan->step,
                           ENGINE_PLAN_MS - ENGINE_HEARTBEAT_MS);
}

/* The next plan reaches everyone.  Ranks leave the step before it at different times, so that step's
 * expected time counts. */
static base_status share_plan(engine *e, int32_t n_tokens_before, int64_t least_ms)
{
    const int64_t step_ms = n_tokens_before == 0 ? 0 : pace_deadline_ms(&e->pace, n_tokens_before);
    const int64_t timeout_ms = step_ms > least_ms ? step_ms : least_ms;
    const base_status st =
        step_plan_broadcast(e->plan, e->ranks, e->met ? timeout_ms : ENGINE_STEP_MS);
    e->met = e->met || st == BASE_OK;
    return st;
}

/* Runs what the broadcast plan says; PLAN_STOP needs nothing.  What is under way besides a step ends first. */
static base_status run_plan(engine *e, const engine_io *io)
{
    base_status st = BASE_OK;
    if (e->plan->kind == PLAN_STEP) {
        BASE_TRY(st, out, begin_step(e));
        st = end_steps(e, io, e->n_ahead);
        goto out;
    }
    BASE_TRY(st, out, end_steps(e, io, 0));
    if (e->plan->kind == PLAN_IDLE) {
        st = run_heartbeat(e);
    }
out:
    return st;
}

/* ---- rank 0 ---- */

/* Takes what has come; waits for the first command only up to wait_us. */
static base_status take_commands(engine *e, const engine_io *io, int64_t wait_us)
{
    base_status st = BASE_OK;
    for (int32_t i = 0; i < MAX_COMMANDS; i++) {
        const group_down *down = NULL;
        BASE_TRY(st, out, io->next(io->ctx, i == 0 ? wait_us : 0, &down));
        if (down == NULL) {
            break;
        }
        lead_take(e->lead, io, down);
    }

out:
    return st;
}

/* Puts the next plan into e->plan; waits while there is nothing to do and no heartbeat due.  Where nothing can run
 * before a step under way has ended, it ends here. */
static base_status next_plan(engine *e, const engine_io *io, const volatile sig_atomic_t *stop)
{
    base_status st = BASE_OK;
    const int64_t heartbeat_us = base_now_us() + (int64_t)ENGINE_HEARTBEAT_MS * 1000;
    int64_t wait_us = 0;

    for (;;) {
        BASE_TRY(st, out, take_commands(e, io, wait_us));
        const int64_t now_us = base_now_us();
        lead_report_load(e->lead, io, now_us);
        if (*stop || lead_drained(e->lead)) {
            step_plan_reset(e->plan, PLAN_STOP, ++e->step);
            break;
        }
        if (lead_plan(e->lead, &e->pace, e->step + 1, e->plan)) {
            e->step++;
            break;
        }
        if (e->n_flights > 0) {
            BASE_TRY(st, out, end_steps(e, io, 0));
            wait_us = 0;
            continue;
        }
        if (now_us >= heartbeat_us) {
            step_plan_reset(e->plan, PLAN_IDLE, ++e->step);
            break;
        }
        wait_us = heartbeat_us - now_us < IDLE_SLICE_US ? heartbeat_us - now_us : IDLE_SLICE_US;
    }

out:
    return st;
}

static base_status run_lead(engine *e, const engine_io *io, const volatile sig_atomic_t *stop)
{
    base_status st = BASE_OK;
    int32_t n_tokens = 0;
    do {
        BASE_TRY(st, out, next_plan(e, io, stop));
        BASE_TRY(st, out, share_plan(e, n_tokens, ENGINE_PLAN_MS - ENGINE_HEARTBEAT_MS));
        n_tokens = e->plan->n_tokens;
        BASE_TRY(st, out, run_plan(e, io));
    } while (e->plan->kind != PLAN_STOP);

out:
    return st;
}

/* ---- the other ranks ---- */

static base_status run_follower(engine *e, const volatile sig_atomic_t *stop)
{
    base_status st = BASE_OK;
    int64_t stop_seen_us = 0;
    int32_t n_tokens = 0;

    do {
        int64_t least_ms = ENGINE_PLAN_MS;
        if (*stop) {
            const int64_t now_us = base_now_us();
            stop_seen_us = stop_seen_us == 0 ? now_us : stop_seen_us;
            if (now_us - stop_seen_us > (int64_t)ENGINE_STOP_GRACE_MS * 1000) {
                st = BASE_FAIL(BASE_CANCELLED, "told to stop, and rank 0 goes on");
                goto out;
            }
            least_ms = ENGINE_STOP_GRACE_MS;
        }
        BASE_TRY(st, out, share_plan(e, n_tokens, least_ms));
        n_tokens = e->plan->n_tokens;
        BASE_TRY(st, out, run_plan(e, NULL));
    } while (e->plan->kind != PLAN_STOP);

out:
    return st;
}

base_status engine_run(engine *e, const engine_io *io, const volatile sig_atomic_t *stop)
{
    const base_status st = e->rank == 0 ? run_lead(e, io, stop) : run_follower(e, stop);
    if (st == BASE_OK) {
        BASE_DEBUG("step loop ends after %" PRIu64 " plans", e->plan->step);
    }
    return st;
}

int64_t engine_due_us(const engine *e)
{
    return atomic_load(&e->due_us);
}
