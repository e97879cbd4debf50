#include "worker/engine/ledger.h"

#include "kvshard/pool.h"
#include "worker/engine/plan.h"

#include <assert.h>
#include <string.h>

struct ledger {
    ledger_limits limits;
    kv_pool **pools;      /* [n_ranks] */
    int64_t *free_pages;  /* [n_ranks] */
    int32_t *counts;      /* [n_ranks] scratch */
    ledger_seq **running; /* [n_slots], n_running in order of arrival */
    int32_t n_running;
    bool *slot_used; /* [n_slots] */
    base_alloc mem;
};

static base_status check_limits(const ledger_limits *m)
{
    if (m->n_ranks < 1 || m->n_ranks > GROUP_MAX_RANKS || m->n_slots < 1 ||
        m->n_slots > PLAN_MAX_SEQS || m->n_pages < 1 || m->n_pages > KV_MAX_PAGES ||
        m->n_vocab < 1 || m->max_context < 2) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "ledger of %d ranks, %d slots, %d pages, %d tokens, context %lld",
                         m->n_ranks, m->n_slots, m->n_pages, m->n_vocab, (long long)m->max_context);
    }
    return BASE_OK;
}

base_status ledger_create(const ledger_limits *limits, const base_alloc *mem, ledger **ledger_out)
{
    base_status st = BASE_OK;
    ledger *l = NULL;

    BASE_TRY(st, out, check_limits(limits));
    l = mem->get(mem->ctx, sizeof *l);
    if (l == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "ledger");
        goto out;
    }
    l->mem = *mem;
    l->limits = *limits;
    const size_t n_ranks = (size_t)limits->n_ranks;
    const size_t n_slots = (size_t)limits->n_slots;
    l->pools = mem->get(mem->ctx, n_ranks * sizeof(kv_pool *));
    l->free_pages = mem->get(mem->ctx, n_ranks * sizeof *l->free_pages);
    l->counts = mem->get(mem->ctx, n_ranks * sizeof *l->counts);
    l->running = mem->get(mem->ctx, n_slots * sizeof(ledger_seq *));
    l->slot_used = mem->get(mem->ctx, n_slots * sizeof *l->slot_used);
    if (l->pools == NULL || l->free_pages == NULL || l->counts == NULL || l->running == NULL ||
        l->slot_used == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "ledger of %d ranks, %d slots", limits->n_ranks,
                       limits->n_slots);
        goto out;
    }
    for (int32_t r = 0; r < limits->n_ranks; r++) {
        BASE_TRY(st, out, kv_pool_create(limits->n_pages, mem, &l->pools[r]));
        l->free_pages[r] = limits->n_pages;
    }
    *ledger_out = l;
    l = NULL;

out:
    ledger_destroy(l);
    return st;
}

static void free_seq(const ledger *l, ledger_seq *s)
{
    if (s == NULL) {
        return;
    }
    l->mem.put(l->mem.ctx, s->prompt);
    l->mem.put(l->mem.ctx, s->pages);
    l->mem.put(l->mem.ctx, s);
}

void ledger_destroy(ledger *l)
{
    if (l == NULL) {
        return;
    }
    const base_alloc mem = l->mem;
    while (l->n_running > 0) {
        ledger_end(l, l->running[l->n_running - 1]);
    }
    for (int32_t r = 0; l->pools != NULL && r < l->limits.n_ranks; r++) {
        kv_pool_destroy(l->pools[r]);
    }
    mem.put(mem.ctx, l->slot_used);
    mem.put(mem.ctx, l->running);
    mem.put(mem.ctx, l->counts);
    mem.put(mem.ctx, l->free_pages);
    mem.put(mem.ctx, l->pools);
    mem.put(mem.ctx, l);
}

/* Can this request run here at all? */
static base_status check_possible(const ledger *l, const group_admit *a)
{
    const ledger_limits *m = &l->limits;
    const int64_t n_prompt = (int64_t)a->n_prompt;

    if (a->n_prompt < 1 || a->n_prompt > INT32_MAX || a->n_sent < 0 || a->n_sent >= n_prompt ||
        a->max_new_tokens <= a->n_sent) {
        return BASE_FAIL(BASE_BAD_INPUT, "prompt of %zu tokens, %d of them sent, max_new_tokens %d",
                         a->n_prompt, a->n_sent, a->max_new_tokens);
    }
    const int64_t n_tokens = n_prompt - a->n_sent + a->max_new_tokens;
    if (n_tokens > m->max_context) {
        return BASE_FAIL(
            BASE_OUT_OF_RANGE, "prompt of %lld tokens and max_new_tokens %d, max_context is %lld",
            (long long)n_prompt - a->n_sent, a->max_new_tokens, (long long)m->max_context);
    }
    const int64_t n_blocks = kv_blocks_of_tokens(n_tokens);
    if (n_blocks > (int64_t)m->n_pages * m->n_ranks) {
        return BASE_FAIL(BASE_OUT_OF_RANGE, "%lld tokens take %lld blocks, the pools hold %lld",
                         (long long)n_tokens, (long long)n_blocks,
                         (long long)m->n_pages * m->n_ranks);
    }
    if (a->n_stop_ids > INFERENCE_MAX_STOP_IDS || a->n_eos_ids > GROUP_MAX_EOS_IDS ||
        a->logprobs < 0 || a->logprobs > INFERENCE_MAX_LOGPROBS) {
        return BASE_FAIL(BASE_BAD_INPUT, "%zu stop ids, %zu eos ids, logprobs %d", a->n_stop_ids,
                         a->n_eos_ids, a->logprobs);
    }
    for (size_t i = 0; i < a->n_prompt; i++) {
        if (a->prompt[i] < 0 || a->prompt[i] >= m->n_vocab) {
            return BASE_FAIL(BASE_BAD_INPUT, "prompt token %zu is %d, the vocabulary has %d", i,
                             a->prompt[i], m->n_vocab);
        }
    }
    return BASE_OK;
}

static bool has_room(const ledger *l, kv_run run, int32_t n_blocks)
{
    kv_owner_count(&run, 1, 0, n_blocks, l->limits.n_ranks, l->counts);
    for (int32_t r = 0; r < l->limits.n_ranks; r++) {
        if (l->counts[r] > l->free_pages[r]) {
            return false;
        }
    }
    return true;
}

/* Errors: EXHAUSTED. */
static base_status choose_start(const ledger *l, int32_t proposed, int32_t n_blocks,
                                kv_run *run_out)
{
    const kv_run run = {0, proposed};
    if (proposed >= 0 && proposed < l->limits.n_ranks && has_room(l, run, n_blocks)) {
        *run_out = run;
        return BASE_OK;
    }
    const int32_t start = kv_owner_place(l->free_pages, l->limits.n_ranks, n_blocks);
    if (start < 0) {
        return BASE_EXHAUSTED;
    }
    *run_out = (kv_run){0, start};
    return BASE_OK;
}

/* A copy of the request, without slot and pages yet. */
static base_status copy_request(const ledger *l, const group_admit *a, int32_t n_blocks,
                                ledger_seq **seq_out)
{
    base_status st = BASE_OK;
    const base_alloc *mem = &l->mem;
    ledger_seq *s = mem->get(mem->ctx, sizeof *s);
    if (s == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "sequence");
        goto out;
    }
    s->pages = mem->get(mem->ctx, (size_t)n_blocks * sizeof *s->pages);
    s->prompt = mem->get(mem->ctx, a->n_prompt * sizeof *s->prompt);
    if (s->pages == NULL || s->prompt == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "sequence of %zu tokens", a->n_prompt);
        goto out;
    }
    memcpy(s->prompt, a->prompt, a->n_prompt * sizeof *s->prompt);
    s->n_prompt = (int64_t)a->n_prompt;
    s->n_blocks = n_blocks;
    s->n_left = a->max_new_tokens - a->n_sent;
    s->credit = a->credit;
    s->sampling = a->sampling;
    s->logprobs = a->logprobs;
    s->n_stop_ids = (int32_t)a->n_stop_ids;
    s->n_eos_ids = (int32_t)a->n_eos_ids;
    for (size_t i = 0; i < a->n_stop_ids; i++) {
        s->stop_ids[i] = a->stop_ids[i];
    }
    for (size_t i = 0; i < a->n_eos_ids; i++) {
        s->eos_ids[i] = a->eos_ids[i];
    }
    *seq_out = s;
    s = NULL;

out:
    free_seq(l, s);
    return st;
}

static void take_pages(ledger *l, ledger_seq *s)
{
    for (int32_t b = 0; b < s->n_blocks; b++) {
        const int32_t r = ledger_owner(l, s, b);
        const base_status st = kv_pool_take(l->pools[r], &s->pages[b]);
        assert(st == BASE_OK); /* free_pages said so */
        (void)st;
        l->free_pages[r]--;
    }
}

base_status ledger_admit(ledger *l, uint64_t seq, const group_admit *admit, ledger_seq **seq_out)
{
    base_status st = BASE_OK;
    ledger_seq *s = NULL;
    kv_run run = {0, 0};

    if (ledger_find(l, seq) != NULL) {
        st = BASE_FAIL(BASE_BAD_INPUT, "sequence %llu runs already", (unsigned long long)seq);
        goto out;
    }
    BASE_TRY(st, out, check_possible(l, admit));
    if (l->n_running == l->limits.n_slots) {
        st = BASE_EXHAUSTED;
        goto out;
    }
    const int64_t n_tokens = (int64_t)admit->n_prompt - admit->n_sent + admit->max_new_tokens;
    const int32_t n_blocks = (int32_t)kv_blocks_of_tokens(n_tokens);
    BASE_TRY(st, out, choose_start(l, admit->start_rank, n_blocks, &run));
    BASE_TRY(st, out, copy_request(l, admit, n_blocks, &s));

    s->seq = seq;
    s->run = run;
    while (l->slot_used[s->slot]) {
        s->slot++;
    }
    l->slot_used[s->slot] = true;
    take_pages(l, s);
    l->running[l->n_running++] = s;
    *seq_out = s;

out:
    return st;
}

ledger_seq *ledger_find(const ledger *l, uint64_t seq)
{
    for (int32_t i = 0; i < l->n_running; i++) {
        if (l->running[i]->seq == seq) {
            return l->running[i];
        }
    }
    return NULL;
}

void ledger_end(ledger *l, ledger_seq *s)
{
    int32_t at = 0;
    while (l->running[at] != s) {
        at++;
        assert(at < l->n_running);
    }
    l->n_running--;
    memmove(&l->running[at], &l->running[at + 1],
            (size_t)(l->n_running - at) * sizeof(ledger_seq *));
    l->slot_used[s->slot] = false;
    for (int32_t b = 0; b < s->n_blocks; b++) {
        const int32_t r = ledger_owner(l, s, b);
        kv_pool_release(l->pools[r], s->pages[b]);
        l->free_pages[r]++;
    }
    free_seq(l, s);
}

ledger_seq *const *ledger_running(const ledger *l)
{
    return l->running;
}

int32_t ledger_n_running(const ledger *l)
{
    return l->n_running;
}

const int64_t *ledger_free_pages(const ledger *l)
{
    return l->free_pages;
}

int32_t ledger_owner(const ledger *l, const ledger_seq *s, int32_t block)
{
    return kv_owner_of(&s->run, 1, block, l->limits.n_ranks);
}

void ledger_used_blocks(const ledger *l, const ledger_seq *s, int32_t *counts_out)
{
    const int32_t n_used = (int32_t)kv_blocks_of_tokens(s->position);
    kv_owner_count(&s->run, 1, 0, n_used, l->limits.n_ranks, counts_out);
}
