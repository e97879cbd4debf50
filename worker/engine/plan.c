#include "worker/engine/plan.h"

#include "kernels/page.h"

#include <string.h>

/* What travels first: the head and as much of the body as fits, so that most steps are one broadcast.  A longer body (prompt
 * ids) follows in a second one.  Rank 0 does not wait until so little has come (comm.h): it goes on into the step when a rank
 * hangs, where an exchange can tell which. */
#define FIRST_BYTES ((size_t)4000)
_Static_assert(FIRST_BYTES <= COMM_SHORT_BYTES, "rank 0 does not wait");

typedef struct plan_head {
    uint64_t step;
    int32_t kind;
    int32_t n_seqs;
    int32_t n_tokens;
    int32_t n_pages;
} plan_head;

static size_t body_bytes(int64_t n_seqs, int64_t n_tokens, int64_t n_pages)
{
    return (size_t)n_seqs * sizeof(plan_seq) + (size_t)n_tokens * sizeof(int32_t) +
           (size_t)n_pages * sizeof(plan_page);
}

base_status step_plan_create(int32_t max_seqs, int32_t max_tokens, const base_alloc *mem,
                             step_plan **plan_out)
{
    base_status st = BASE_OK;
    step_plan *p = NULL;

    if (max_seqs < 1 || max_seqs > PLAN_MAX_SEQS || max_tokens < 1 ||
        max_tokens > PLAN_MAX_TOKENS) {
        st = BASE_FAIL(BASE_BAD_INPUT, "plan of %d sequences, %d tokens, allowed 1..%d and 1..%d",
                       max_seqs, max_tokens, PLAN_MAX_SEQS, PLAN_MAX_TOKENS);
        goto out;
    }
    p = mem->get(mem->ctx, sizeof *p);
    if (p == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "step plan");
        goto out;
    }
    p->mem = *mem;
    p->max_seqs = max_seqs;
    p->max_tokens = max_tokens;
    p->max_pages = max_tokens / KERN_BLOCK_TOKENS + 2 * max_seqs;
    size_t wire_bytes = sizeof(plan_head) + body_bytes(max_seqs, max_tokens, p->max_pages);
    if (wire_bytes < FIRST_BYTES) {
        wire_bytes = FIRST_BYTES;
    }
    p->seqs = mem->get(mem->ctx, (size_t)max_seqs * sizeof *p->seqs);
    p->ids = mem->get(mem->ctx, (size_t)max_tokens * sizeof *p->ids);
    p->pages = mem->get(mem->ctx, (size_t)p->max_pages * sizeof *p->pages);
    p->wire = mem->get(mem->ctx, wire_bytes);
    if (p->seqs == NULL || p->ids == NULL || p->pages == NULL || p->wire == NULL) {
        st = BASE_FAIL(BASE_NO_MEMORY, "step plan of %zu bytes", wire_bytes);
        goto out;
    }
    *plan_out = p;
    p = NULL;

out:
    step_plan_destroy(p);
    return st;
}

void step_plan_destroy(step_plan *plan)
{
    if (plan == NULL) {
        return;
    }
    const base_alloc mem = plan->mem;
    mem.put(mem.ctx, plan->wire);
    mem.put(mem.ctx, plan->pages);
    mem.put(mem.ctx, plan->ids);
    mem.put(mem.ctx, plan->seqs);
    mem.put(mem.ctx, plan);
}

void step_plan_reset(step_plan *plan, plan_kind kind, uint64_t step)
{
    plan->kind = kind;
    plan->step = step;
    plan->n_seqs = 0;
    plan->n_tokens = 0;
    plan->n_pages = 0;
}

static base_status check_head(const step_plan *plan, const plan_head *head)
{
    if (head->kind < PLAN_IDLE || head->kind > PLAN_STOP) {
        return BASE_FAIL(BASE_BAD_INPUT, "plan of kind %d", head->kind);
    }
    if (head->n_seqs < 0 || head->n_seqs > plan->max_seqs || head->n_tokens < 0 ||
        head->n_tokens > plan->max_tokens || head->n_pages < 0 || head->n_pages > plan->max_pages) {
        return BASE_FAIL(BASE_BAD_INPUT,
                         "plan of %d sequences, %d tokens, %d pages, at most %d, %d, %d",
                         head->n_seqs, head->n_tokens, head->n_pages, plan->max_seqs,
                         plan->max_tokens, plan->max_pages);
    }
    return BASE_OK;
}

static base_status check_body(const step_plan *plan, int32_t n_ranks)
{
    int32_t next_token = 0;
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const plan_seq *s = &plan->seqs[i];
        if (s->slot < 0 || s->slot >= plan->max_seqs || s->position < 0 || s->n_tokens < 1 ||
            s->first_token != next_token || s->n_tokens > plan->n_tokens - next_token) {
            return BASE_FAIL(
                BASE_BAD_INPUT, "plan sequence %d: slot %d, position %lld, tokens %d from %d of %d",
                i, s->slot, (long long)s->position, s->n_tokens, s->first_token, plan->n_tokens);
        }
        next_token += s->n_tokens;
    }
    if (next_token != plan->n_tokens) {
        return BASE_FAIL(BASE_BAD_INPUT, "plan of %d tokens, %d in its sequences", plan->n_tokens,
                         next_token);
    }
    for (int32_t i = 0; i < plan->n_pages; i++) {
        const plan_page *p = &plan->pages[i];
        if (p->slot < 0 || p->slot >= plan->max_seqs || p->block < 0 || p->page < 0 ||
            p->rank < 0 || p->rank >= n_ranks) {
            return BASE_FAIL(BASE_BAD_INPUT, "plan page %d: slot %d, block %d, rank %d, page %d", i,
                             p->slot, p->block, p->rank, p->page);
        }
    }
    return BASE_OK;
}

static uint8_t *put(uint8_t *to, const void *from, size_t n_bytes)
{
    memcpy(to, from, n_bytes);
    return to + n_bytes;
}

static const uint8_t *get(void *to, const uint8_t *from, size_t n_bytes)
{
    memcpy(to, from, n_bytes);
    return from + n_bytes;
}

static void pack(step_plan *plan)
{
    const plan_head head = {plan->step, (int32_t)plan->kind, plan->n_seqs, plan->n_tokens,
                            plan->n_pages};
    uint8_t *to = put(plan->wire, &head, sizeof head);
    to = put(to, plan->seqs, (size_t)plan->n_seqs * sizeof *plan->seqs);
    to = put(to, plan->pages, (size_t)plan->n_pages * sizeof *plan->pages);
    put(to, plan->ids, (size_t)plan->n_tokens * sizeof *plan->ids);
}

static void unpack(step_plan *plan, const plan_head *head)
{
    plan->kind = (plan_kind)head->kind;
    plan->step = head->step;
    plan->n_seqs = head->n_seqs;
    plan->n_tokens = head->n_tokens;
    plan->n_pages = head->n_pages;
    const uint8_t *from = plan->wire + sizeof *head;
    from = get(plan->seqs, from, (size_t)plan->n_seqs * sizeof *plan->seqs);
    from = get(plan->pages, from, (size_t)plan->n_pages * sizeof *plan->pages);
    get(plan->ids, from, (size_t)plan->n_tokens * sizeof *plan->ids);
}

base_status step_plan_broadcast(step_plan *plan, comm *ranks, int64_t timeout_ms)
{
    base_status st = BASE_OK;
    plan_head head;

    if (comm_rank(ranks) == 0) {
        pack(plan);
    }
    BASE_TRY(st, out, comm_broadcast(ranks, plan->wire, FIRST_BYTES, 0, timeout_ms));
    memcpy(&head, plan->wire, sizeof head);
    BASE_TRY(st, out, check_head(plan, &head));
    const size_t n_bytes = sizeof head + body_bytes(head.n_seqs, head.n_tokens, head.n_pages);
    if (n_bytes > FIRST_BYTES) {
        BASE_TRY(
            st, out,
            comm_broadcast(ranks, plan->wire + FIRST_BYTES, n_bytes - FIRST_BYTES, 0, timeout_ms));
    }
    unpack(plan, &head);
    BASE_TRY(st, out, check_body(plan, comm_size(ranks)));

out:
    return st;
}
