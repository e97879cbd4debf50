#include "worker/engine/pace.h"

#include "kernels/page.h"
#include "worker/engine/engine.h"

#include <stdbool.h>

static void note(step_kind *k, double us)
{
    k->us = us > k->us || k->n_steps == 1 ? us : 0.9 * k->us + 0.1 * us;
    k->n_steps++;
}

static void note_latest(double *latest_us, double us)
{
    *latest_us = *latest_us > 0.0 ? 0.5 * (*latest_us + us) : us;
}

static bool is_shared(const step_pace *p, int32_t n_tokens)
{
    return p->shared_from > 0 && n_tokens >= p->shared_from;
}

void pace_note(step_pace *p, int64_t us, int32_t n_tokens)
{
    const double cost = (double)us / n_tokens;
    if (n_tokens < KERN_BLOCK_TOKENS) {
        note(&p->small, (double)us);
        return;
    }
    const bool shared = is_shared(p, n_tokens);
    note(shared ? &p->shared : &p->large, cost);
    if (shared && p->n_not_shared >= PACE_TRY_AGAIN) {
        p->latest_us_of_a_shared = 0.0;
    }
    p->n_not_shared = shared ? 0 : p->n_not_shared + 1;
    if (p->small.n_steps + p->large.n_steps + p->shared.n_steps > 1) {
        note_latest(shared ? &p->latest_us_of_a_shared : &p->latest_us_per_token, cost);
    }
}

/* 0: nothing is known.  Of the kind that has not been seen, the most it can be. */
static double expected_us(const step_pace *p, int32_t n_tokens)
{
    const double large_us = p->large.us > 0.0 ? p->large.us : p->shared.us * p->n_ranks;
    if (n_tokens < KERN_BLOCK_TOKENS) {
        return p->small.us > 0.0 ? p->small.us : large_us * KERN_BLOCK_TOKENS;
    }
    if (is_shared(p, n_tokens) && p->shared.us > 0.0) {
        return n_tokens * p->shared.us;
    }
    return n_tokens * (large_us > 0.0 ? large_us : p->small.us);
}

int64_t pace_deadline_ms(const step_pace *p, int32_t n_tokens)
{
    const double us = expected_us(p, n_tokens);
    if (us <= 0.0) {
        return ENGINE_STEP_MS;
    }
    const double ms = 4.0 * us / 1000.0;
    return ms > ENGINE_MIN_STEP_MS ? (int64_t)ms : ENGINE_MIN_STEP_MS;
}

int64_t pace_wait_ms(int64_t deadline_ms)
{
    return deadline_ms - deadline_ms / 4; /* a quarter: what the step should take, or more */
}

int32_t pace_chunk(const step_pace *p, int32_t n_decoding, int64_t goal_ms, int32_t prefill_chunk)
{
    const double goal_us = (double)goal_ms * 1000.0;
    const double shared_us = p->latest_us_of_a_shared;
    const bool shared =
        shared_us > 0.0 && (p->latest_us_per_token <= 0.0 || goal_us >= p->shared_from * shared_us);
    const double us_per_token = shared ? shared_us : p->latest_us_per_token;
    if (goal_ms == 0 || us_per_token <= 0.0) {
        return prefill_chunk;
    }
    if (!shared && shared_us > 0.0 && p->n_not_shared >= PACE_TRY_AGAIN &&
        p->shared_from <= prefill_chunk) {
        return (p->shared_from + KERN_BLOCK_TOKENS - 1) / KERN_BLOCK_TOKENS * KERN_BLOCK_TOKENS;
    }
    const double n_fit = goal_us / us_per_token - n_decoding;
    if (n_fit >= prefill_chunk) {
        return prefill_chunk;
    }
    const int32_t chunk = (int32_t)n_fit / KERN_BLOCK_TOKENS * KERN_BLOCK_TOKENS;
    return chunk > KERN_BLOCK_TOKENS ? chunk : KERN_BLOCK_TOKENS;
}
