#include "worker/engine/lead.h"

#include "base/log.h"
#include "base/random.h"
#include "worker/engine/ledger.h"
#include "worker/engine/scheduler.h"

#include <assert.h>
#include <inttypes.h>

static_assert(INFERENCE_MAX_LOGPROBS <= KERN_SAMPLE_MAX_TOP, "reports hold what is asked for");

typedef struct part { /* of a step under way */
    ledger_seq *seq;  /* NULL: it has ended meanwhile */
    plan_seq plan;
} part;

typedef struct lead_step {
    part *parts; /* [max_batch] */
    int32_t n_parts;
} lead_step;

struct lead {
    ledger *ledger;
    sched_seq *sched;                /* [max_batch] */
    sched_pick *picks;               /* [max_batch] */
    lead_step steps[LEAD_MAX_STEPS]; /* number n is at n % LEAD_MAX_STEPS */
    uint64_t n_planned;
    uint64_t n_steps;     /* of them, that are committed */
    int32_t *used_blocks; /* [n_ranks] */
    int32_t n_ranks;
    int32_t n_vocab;
    int32_t prefill_chunk;
    int64_t step_goal_ms;
    int64_t load_reported_us;
    bool load_changed;
    bool draining;
    base_alloc mem;
};

base_status lead_create(const engine_options *options, int32_t n_ranks, int32_t n_vocab,
                        const base_alloc *mem, lead **lead_out)
{
    base_status st = BASE_OK;
    const size_t n_seqs = (size_t)options->max_batch;
    lead *l = mem->get(mem->ctx, sizeof *l);
    if (l == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "rank 0's step state");
        goto out;
    }
    l->mem = *mem;
    l->n_ranks = n_ranks;
    l->n_vocab = n_vocab;
    l->prefill_chunk = options->prefill_chunk;
    l->step_goal_ms = options->step_goal_ms;
    l->load_changed = true;
    const ledger_limits limits = {.n_ranks = n_ranks,
                                  .n_slots = options->max_batch,
                                  .n_pages = options->n_pages,
                                  .n_vocab = n_vocab,
                                  .max_context = options->max_context};
    BASE_TRY(st, out, ledger_create(&limits, mem, &l->ledger));
    l->sched = mem->get(mem->ctx, n_seqs * sizeof *l->sched);
    l->picks = mem->get(mem->ctx, n_seqs * sizeof *l->picks);
    l->used_blocks = mem->get(mem->ctx, (size_t)n_ranks * sizeof *l->used_blocks);
    bool ok = l->sched != NULL && l->picks != NULL && l->used_blocks != NULL;
    for (int32_t i = 0; ok && i < LEAD_MAX_STEPS; i++) {
        l->steps[i].parts = mem->get(mem->ctx, n_seqs * sizeof(part));
        ok = l->steps[i].parts != NULL;
    }
    if (!ok) {
        st = BASE_FAIL(BASE_NO_MEMORY, "step state of %zu sequences", n_seqs);
        goto out;
    }
    *lead_out = l;
    l = NULL;

out:
    lead_destroy(l);
    return st;
}

void lead_destroy(lead *l)
{
    if (l == NULL) {
        return;
    }
    const base_alloc mem = l->mem;
    mem.put(mem.ctx, l->used_blocks);
    for (int32_t i = 0; i < LEAD_MAX_STEPS; i++) {
        mem.put(mem.ctx, l->steps[i].parts);
    }
    mem.put(mem.ctx, l->picks);
    mem.put(mem.ctx, l->sched);
    ledger_destroy(l->ledger);
    mem.put(mem.ctx, l);
}

/* ---- commands ---- */

/* st says whether it may be tried again, and else whose fault it is. */
static void refuse(const engine_io *io, uint64_t seq, base_status st, const char *reason)
{
    const bool retry = st == BASE_EXHAUSTED || st == BASE_NO_MEMORY;
    BASE_INFO("seq %" PRIu64 " refused%s: %s", seq, retry ? " for now" : "", reason);
    const group_up up = {.kind = GROUP_UP_REFUSED,
                         .seq = seq,
                         .retry = retry,
                         .invalid = st == BASE_BAD_INPUT,
                         .reason_text = base_view_of(reason)};
    io->emit(io->ctx, &up);
}

static void admit(lead *l, const engine_io *io, const group_down *down)
{
    ledger_seq *s = NULL;

    if (l->draining) {
        refuse(io, down->seq, BASE_EXHAUSTED, "the group is draining");
        return;
    }
    const base_status st = ledger_admit(l->ledger, down->seq, &down->admit, &s);
    if (st != BASE_OK) { /* EXHAUSTED comes without a text */
        refuse(io, down->seq, st,
               st == BASE_EXHAUSTED ? "no slot or blocks free now" : base_last_error());
        return;
    }
    l->load_changed = true;
    BASE_DEBUG("seq %" PRIu64 " slot %d: %" PRId64 " prompt tokens, %d blocks from rank %d", s->seq,
               s->slot, s->n_prompt, s->n_blocks, s->run.start_rank);
    const group_up up = {.kind = GROUP_UP_ADMITTED, .seq = s->seq, .start_rank = s->run.start_rank};
    io->emit(io->ctx, &up);
}

/* Steps under way have nothing more to do with s. */
static void forget(lead *l, const ledger_seq *s)
{
    for (int32_t k = 0; k < LEAD_MAX_STEPS; k++) {
        for (int32_t i = 0; i < l->steps[k].n_parts; i++) {
            part *p = &l->steps[k].parts[i];
            p->seq = p->seq == s ? NULL : p->seq;
        }
    }
}

static void end(lead *l, const engine_io *io, ledger_seq *s, group_end_reason reason,
                int32_t stop_id)
{
    ledger_used_blocks(l->ledger, s, l->used_blocks);
    const group_up up = {.kind = GROUP_UP_ENDED,
                         .seq = s->seq,
                         .reason = reason,
                         .stop_id = stop_id,
                         .blocks_per_rank = l->used_blocks,
                         .n_blocks_per_rank = (size_t)l->n_ranks};
    BASE_DEBUG("seq %" PRIu64 " slot %d ends at %" PRId64 " tokens", s->seq, s->slot, s->position);
    forget(l, s);
    ledger_end(l->ledger, s);
    l->load_changed = true;
    io->emit(io->ctx, &up);
}

void lead_take(lead *l, const engine_io *io, const group_down *down)
{
    ledger_seq *s = NULL;

    switch (down->kind) {
    case GROUP_DOWN_ADMIT: admit(l, io, down); break;
    case GROUP_DOWN_CANCEL:
        s = ledger_find(l->ledger, down->seq);
        if (s != NULL) { /* else it ended while the command travelled */
            end(l, io, s, GROUP_END_CANCELLED, 0);
        }
        break;
    case GROUP_DOWN_CREDIT:
        s = ledger_find(l->ledger, down->seq);
        if (s != NULL && s->credit < INT64_MAX - down->credit) {
            s->credit += down->credit;
        }
        break;
    case GROUP_DOWN_DRAIN: l->draining = true; break;
    case GROUP_DOWN_WELCOME:
    case GROUP_DOWN_PING: break;
    }
}

bool lead_drained(const lead *l)
{
    return l->draining && ledger_n_running(l->ledger) == 0;
}

/* ---- a step ---- */

static void plan_one(lead *l, lead_step *step, step_plan *plan, ledger_seq *s,
                     const sched_pick *pick)
{
    const int64_t begin = s->position + s->n_ahead;
    const int64_t end = begin + pick->n_tokens;
    assert(plan->n_seqs < plan->max_seqs && pick->n_tokens <= plan->max_tokens - plan->n_tokens);

    const plan_seq p = {.position = begin,
                        .slot = s->slot,
                        .n_tokens = pick->n_tokens,
                        .first_token = plan->n_tokens,
                        .clears = begin == 0,
                        .samples = pick->samples};
    step->parts[step->n_parts++] = (part){s, p};
    plan->seqs[plan->n_seqs++] = p;
    for (int64_t at = begin; at < end; at++) {
        plan->ids[plan->n_tokens++] = at < s->n_prompt ? s->prompt[at] : PLAN_LAST_TOKEN;
    }
    /* kv_blocks_of_tokens(p) is the first block that begins at p or later. */
    const int32_t n_after = (int32_t)kv_blocks_of_tokens(end);
    for (int32_t b = (int32_t)kv_blocks_of_tokens(begin); b < n_after; b++) {
        assert(b < s->n_blocks && plan->n_pages < plan->max_pages);
        plan->pages[plan->n_pages++] = (plan_page){.slot = s->slot,
                                                   .block = b,
                                                   .rank = ledger_owner(l->ledger, s, b),
                                                   .page = s->pages[b]};
    }
    s->n_ahead += pick->n_tokens;
    s->n_making += pick->samples;
}

bool lead_plan(lead *l, const step_pace *pace, uint64_t step, step_plan *plan)
{
    int32_t n_decoding = 0;
    ledger_seq *const *running = ledger_running(l->ledger);
    const int32_t n_running = ledger_n_running(l->ledger);
    lead_step *mine = &l->steps[l->n_planned % LEAD_MAX_STEPS];

    assert(l->n_planned - l->n_steps < LEAD_MAX_STEPS);
    for (int32_t i = 0; i < n_running; i++) {
        const ledger_seq *s = running[i];
        const bool may = s->credit > s->n_making && s->n_left > s->n_making;
        l->sched[i] = (sched_seq){s->position + s->n_ahead, s->n_prompt, may};
        n_decoding += l->sched[i].position >= s->n_prompt && may;
    }
    const int32_t chunk = pace_chunk(pace, n_decoding, l->step_goal_ms, l->prefill_chunk);
    const int32_t n_picks = scheduler_choose(l->sched, n_running, chunk, l->picks);
    if (n_picks == 0) {
        return false;
    }
    step_plan_reset(plan, PLAN_STEP, step);
    mine->n_parts = 0;
    for (int32_t i = 0; i < n_picks; i++) {
        plan_one(l, mine, plan, running[l->picks[i].seq], &l->picks[i]);
    }
    l->n_planned++;
    return true;
}

static forward_pick pick_of(const part *p, int32_t n_vocab)
{
    const ledger_seq *s = p->seq;
    const int64_t position = p->plan.position + p->plan.n_tokens; /* that the token will take */
    const bool begins = position == s->n_prompt && s->sampling.repetition_penalty != 1.0f;
    return (forward_pick){
        .token = p->plan.first_token + p->plan.n_tokens - 1,
        .how = {.random = base_random_u64(s->sampling.seed, 0, (uint64_t)position),
                .temperature = s->sampling.temperature,
                .top_p = s->sampling.top_p,
                .min_p = s->sampling.min_p,
                .penalty = s->sampling.repetition_penalty,
                .top_k = s->sampling.top_k,
                .slot = s->slot,
                .n_top = s->logprobs < n_vocab ? s->logprobs : n_vocab},
        .seen_ids = begins ? s->prompt : NULL,
        .n_seen = begins ? s->n_prompt : 0,
    };
}

int32_t lead_picks(const lead *l, forward_pick *picks_out)
{
    int32_t n = 0;
    const lead_step *step = &l->steps[(l->n_planned - 1) % LEAD_MAX_STEPS];
    for (int32_t i = 0; i < step->n_parts; i++) {
        if (step->parts[i].plan.samples) {
            picks_out[n++] = pick_of(&step->parts[i], l->n_vocab);
        }
    }
    return n;
}

static void report_token(const engine_io *io, const ledger_seq *s, int32_t id, int32_t n_top,
                         const kern_sample_report *report)
{
    group_up up = {.kind = GROUP_UP_TOKENS, .seq = s->seq, .ids = &id, .n_ids = 1};
    if (n_top > 0) {
        up.logprobs = &report->logprob;
        up.n_top = n_top;
        up.top_ids = report->top_ids;
        up.top_logprobs = report->top_logprobs;
    }
    io->emit(io->ctx, &up);
}

static bool holds(const int32_t *ids, int32_t n, int32_t id)
{
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

/* UNSPECIFIED: it goes on. */
static group_end_reason reason_to_end(const ledger_seq *s, int32_t id)
{
    if (holds(s->eos_ids, s->n_eos_ids, id)) {
        return GROUP_END_EOS;
    }
    if (holds(s->stop_ids, s->n_stop_ids, id)) {
        return GROUP_END_STOP_TOKEN;
    }
    return s->n_left == 0 ? GROUP_END_LENGTH : GROUP_END_UNSPECIFIED;
}

static void commit_token(lead *l, const engine_io *io, ledger_seq *s, int32_t id,
                         const kern_sample_report *report)
{
    s->credit--;
    s->n_left--;
    s->n_making--;
    report_token(io, s, id, s->logprobs < l->n_vocab ? s->logprobs : l->n_vocab, report);
    const group_end_reason reason = reason_to_end(s, id);
    if (reason != GROUP_END_UNSPECIFIED) {
        end(l, io, s, reason, reason == GROUP_END_LENGTH ? 0 : id);
    }
}

static void commit_part(lead *l, const engine_io *io, const part *p, const forward_made *made,
                        const kern_sample_report *report)
{
    ledger_seq *s = p->seq;
    if (s->position == 0) {
        l->load_changed = true; /* it waits no more */
    }
    s->position += p->plan.n_tokens;
    s->n_ahead -= p->plan.n_tokens;
    if (p->plan.position < s->n_prompt) {
        const group_up up = {
            .kind = GROUP_UP_PROGRESS, .seq = s->seq, .done = s->position, .total = s->n_prompt};
        io->emit(io->ctx, &up);
    }
    if (p->plan.samples) {
        commit_token(l, io, s, made->last_tokens[s->slot], report);
    }
}

void lead_commit(lead *l, const engine_io *io, const forward_made *made)
{
    lead_step *step = &l->steps[l->n_steps++ % LEAD_MAX_STEPS];
    const kern_sample_report *report = made->reports;

    for (int32_t i = 0; i < step->n_parts; i++) {
        const part *p = &step->parts[i];
        if (p->seq != NULL) {
            commit_part(l, io, p, made, report);
        }
        report += p->plan.samples;
    }
    step->n_parts = 0;
}

void lead_report_load(lead *l, const engine_io *io, int64_t now_us)
{
    /* A tick early, because the loop looks only so often. */
    const int64_t due_us = l->load_reported_us + (int64_t)(ENGINE_HEARTBEAT_MS - 50) * 1000;
    if (!l->load_changed && now_us < due_us) {
        return;
    }
    const int32_t n_running = ledger_n_running(l->ledger);
    int32_t n_begun = 0;
    for (int32_t i = 0; i < n_running; i++) {
        n_begun += ledger_running(l->ledger)[i]->position > 0;
    }
    const group_up up = {.kind = GROUP_UP_LOAD,
                         .running = n_begun,
                         .waiting = n_running - n_begun,
                         .blocks_free_per_rank = ledger_free_pages(l->ledger),
                         .n_blocks_free = (size_t)l->n_ranks,
                         .steps = l->n_steps};
    l->load_changed = false;
    l->load_reported_us = now_us;
    io->emit(io->ctx, &up);
}
